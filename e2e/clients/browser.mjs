// A person at Chromium.
//
//   in   {start, until, account: {username, password}, screenshots: FOLDER | null, scheme: 'light' | 'dark', width, chromium,
//         stopAt: text of a heading to stop at | null}
//   out  {url, pages: [{url, title, heading, status}], problems: [console errors], screenshots: [files]}
import { chromium } from 'playwright-core';
import { main, send } from './lines.mjs';

const refusal = /deny|cancel|decline|refuse|skip|not you/i;

main(async ({ start, until, account, screenshots, scheme = 'light', width = 1280, chromium: executablePath, stopAt = null }) => {
  const browser = await chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 860 }, deviceScaleFactor: 2 });
  const page = await context.newPage();
  const problems = [];
  page.on('console', (message) => { if (message.type() === 'error') problems.push(message.text()); });
  page.on('pageerror', (error) => problems.push(String(error)));

  const pages = [];
  const files = [];
  let response = await page.goto(start);
  for (let step = 0; step < 12 && !page.url().startsWith(until); step++) {
    const heading = (await page.locator('h1').first().textContent({ timeout: 5000 })).trim();
    const seen = { url: page.url().split('?')[0], title: await page.title(), heading, status: response?.status() ?? 0 };
    pages.push(seen);
    if (screenshots) {
      const file = `${screenshots}/${String(step + 1).padStart(2, '0')}-${new URL(page.url()).port}-${scheme}-${width}.png`;
      await page.screenshot({ path: file, fullPage: true });
      files.push(file);
    }
    if (stopAt !== null && heading.includes(stopAt)) break;
    const username = page.locator('input[name=username]');
    if (await username.count()) {
      await username.fill(account.username);
      await page.locator('input[name=password]').fill(account.password);
    }
    const buttons = page.locator('button[type=submit], button:not([type]), input[type=submit]');
    let pressed = false;
    for (const button of await buttons.all()) {
      const label = (await button.textContent()) || (await button.getAttribute('value')) || '';
      if (refusal.test(label)) continue;
      const navigation = page.waitForNavigation({ timeout: 15000, waitUntil: 'load' });
      await button.click();
      response = await navigation;
      pressed = true;
      break;
    }
    if (!pressed) break;
  }
  const url = page.url();
  await browser.close();
  send({ url, pages, problems, screenshots: files });
});
