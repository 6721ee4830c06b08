// oidc-provider (https://github.com/panva/node-oidc-provider) at Entra's
// addresses: {issuer}/{tenant}/oauth2/v2.0/token and its siblings. The first
// line of stdin holds the settings, and the end of stdin ends the program. It
// prints the issuer when it listens.
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

// Version 9 needs Node.js 20; Debian 12 has 18.
const old = parseInt(process.versions.node, 10) < 20;
const { default: Provider, interactionPolicy } = await import(old ? 'oidc-provider-8' : 'oidc-provider');

const input = createInterface({ input: process.stdin });
input.on('close', () => process.exit());
input.once('line', (line) => start(JSON.parse(line)));

function start({ tenant, scopes, clients }) {
  const server = createServer();
  server.listen(0, '127.0.0.1', () => {
    const issuer = `http://127.0.0.1:${server.address().port}`;
    const provider = new Provider(issuer, configuration(tenant, scopes, clients));
    provider.use(offline(`/${tenant}/oauth2/v2.0/authorize`));
    provider.on('server_error', (ctx, err) => console.error(err));
    server.on('request', provider.callback());
    console.log(`issuer ${issuer}`);
  });
}

function configuration(tenant, scopes, clients) {
  // Entra's clients ask for prompt=select_account, which is unknown here. The
  // page to sign in with does for it, as nobody is signed in yet.
  const policy = interactionPolicy.base();
  policy.add(new interactionPolicy.Prompt({ name: 'select_account', requestable: true }));
  policy.get('select_account').checks.clear();
  return {
    clients,
    scopes: ['openid', 'offline_access', ...scopes],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'oid', 'tid'] },
    conformIdTokenClaims: false,
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: 'Alice Example', preferred_username: id, oid: `oid of ${id}`, tid: tenant }),
    }),
    cookies: { keys: [randomBytes(32).toString('hex')] },
    interactions: { policy },
    rotateRefreshToken: true,
    routes: {
      authorization: `/${tenant}/oauth2/v2.0/authorize`,
      token: `/${tenant}/oauth2/v2.0/token`,
      device_authorization: `/${tenant}/oauth2/v2.0/devicecode`,
      code_verification: '/devicelogin',
    },
    // A client whose name begins so has a code of one second.
    ttl: { DeviceCode: (ctx, token, client) => (client.clientId.startsWith('impatient') ? 1 : 600) },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
  };
}

// offline asks for consent wherever a refresh token is asked for, which OpenID
// Connect Core section 11 wants of the client, and Entra does not.
function offline(path) {
  return (ctx, next) => {
    if (ctx.path === path && `${ctx.query.scope}`.includes('offline_access')) {
      ctx.query = { ...ctx.query, prompt: [ctx.query.prompt, 'consent'].filter(Boolean).join(' ') };
    }
    return next();
  };
}
