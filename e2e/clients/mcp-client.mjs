// The official TypeScript client's own way through discovery, registration, PKCE and the token endpoint.
//
//   in   {url, redirectUri, mode: 'legacy' | 'auto', calls: [{name, arguments}]}
//   out  {authorize: URL}            the person's browser has to go there
//   in   {callback: URL}             where the browser was sent in the end
//   out  {version, tools, results, refreshed, tokens}
import { Client, StreamableHTTPClientTransport, UnauthorizedError, auth } from '@modelcontextprotocol/client';
import { main, receive, send } from './lines.mjs';

class Provider {
  constructor(redirectUri) {
    this.redirectUrl = redirectUri;
    this.clientMetadata = {
      client_name: 'TypeScript client',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    };
  }
  state() { return (this.sentState ??= crypto.randomUUID()); }
  clientInformation() { return this.information; }
  saveClientInformation(information) { this.information = information; }
  tokens() { return this.saved; }
  saveTokens(tokens) { this.saved = tokens; }
  redirectToAuthorization(url) { this.authorizationUrl = url; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  codeVerifier() { return this.verifier; }
}

main(async ({ url, redirectUri, mode, calls }) => {
  const provider = new Provider(redirectUri);
  const connect = async (transport) => {
    const client = new Client({ name: 'typescript-client', version: '1' }, { versionNegotiation: { mode } });
    await client.connect(transport);
    return client;
  };
  const first = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  try {
    await connect(first);
    throw new Error('connected without a token');
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  send({ authorize: provider.authorizationUrl.href });
  const callback = new URL((await receive()).callback);
  if (callback.searchParams.get('state') !== provider.sentState) throw new Error('state does not match');
  await first.finishAuth(callback.searchParams);

  const client = await connect(new StreamableHTTPClientTransport(new URL(url), { authProvider: provider }));
  const { tools } = await client.listTools();
  const results = [];
  for (const call of calls) results.push(await client.callTool(call));

  const before = provider.saved;
  const outcome = await auth(provider, { serverUrl: url });
  const refreshed = outcome === 'AUTHORIZED' && provider.saved.access_token !== before.access_token && provider.saved.refresh_token !== before.refresh_token;
  results.push(await client.callTool(calls[0]));
  const version = client.getNegotiatedProtocolVersion();
  await client.close();
  send({ version, tools: tools.map((tool) => tool.name), results, refreshed, tokens: [before, provider.saved] });
});
