// One JSON value a line on standard input and output: how a test in Go drives these scripts.
import { createInterface } from 'node:readline';

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function receive() {
  const { value, done } = await input.next();
  if (done) throw new Error('standard input ended');
  return JSON.parse(value);
}

export function send(value) {
  process.stdout.write(JSON.stringify(value) + '\n');
}

export async function main(run) {
  try {
    await run(await receive());
    process.exit(0);
  } catch (error) {
    send({ error: String(error?.message ?? error), stack: error?.stack, code: error?.code });
    process.exit(1);
  }
}
