// An identity provider that nobody of ours wrote: discovery, JWKS, introspection over TLS. What a test needs of it is
// asked for below `/test/`.

import { OAuth2Server } from 'oauth2-mock-server';

const [certificate, key] = process.argv.slice(2);
const server = new OAuth2Server(key, certificate);
for (const alg of ['RS256', 'ES256', 'EdDSA']) await server.issuer.keys.generate(alg);

const calls = { introspect: [] };
const answers = {};
const reply = (res, body) => {
  res.writeHead(200, { 'content-type': 'application/json' });
  res.end(JSON.stringify(body));
};

// A token with these claims, signed with a key of this algorithm, which is made if there is none or a fresh one is wanted.
server.service.addRoute('POST', '/test/token', async (req, res) => {
  const { claims, alg = 'RS256', fresh = false, expires_in = 600 } = req.body;
  let jwk = server.issuer.keys.toJSON().findLast((known) => known.alg === alg);
  if (fresh || !jwk) jwk = await server.issuer.keys.generate(alg);
  const scopesOrTransform = (_header, payload) => Object.assign(payload, claims);
  const token = await server.issuer.buildToken({ kid: jwk.kid, expiresIn: expires_in, scopesOrTransform });
  reply(res, { token, kid: jwk.kid });
});

// What introspection answers from now on, by token.
server.service.addRoute('POST', '/test/introspection', (req, res) => {
  Object.assign(answers, req.body);
  reply(res, {});
});

server.service.addRoute('GET', '/test/calls', (_req, res) => reply(res, calls));

// Its own endpoint does not read what it is asked about.
server.service.addRoute('POST', '/oauth/introspect', (req, res) => {
  calls.introspect.push(req.headers.authorization ?? '');
  reply(res, answers[req.body.token] ?? { active: false });
});

await server.start(0, 'localhost');
console.log(JSON.stringify({ issuer: server.issuer.url }));
