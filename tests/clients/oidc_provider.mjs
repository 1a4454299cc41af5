// An OpenID provider on loopback: node oidc_provider.mjs PORT ALGORITHM. Prints its issuer once it listens. Its signing key is
// new at each start.
// Clients get tokens for themselves (client credentials), as services and pipelines do.
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const [port, algorithm] = process.argv.slice(2);
const kinds = {
  RS256: ["rsa", { modulusLength: 2048 }],
  ES256: ["ec", { namedCurve: "P-256" }],
  EdDSA: ["ed25519", {}],
};
const key = generateKeyPairSync(...kinds[algorithm]).privateKey.export({ format: "jwk" });
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "pipeline",
      client_secret: "pipeline-secret",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: algorithm,
    },
  ],
  jwks: { keys: [{ ...key, use: "sig", alg: algorithm }] },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
  scopes: ["fleet.generate"],
  extraTokenClaims: () => ({ groups: ["shop-team"] }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        scope: "fleet.generate",
        audience: resource,
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: algorithm } },
      }),
    },
  },
});
provider.listen(Number(port), "127.0.0.1", () => console.log(issuer));
