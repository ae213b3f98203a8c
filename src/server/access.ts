// Who may talk to the server, and what with. Three checks, each against something a page in the user's own
// browser could try: the token (any request to loopback), the Host header (DNS rebinding: the attacker's
// name that resolves to us), the Origin header (requests that carry what the user typed or kept elsewhere).
//
// Invariant: tokens are kept as digests and compared in a time that depends on neither their text nor which
// of them it was; no token is in any message.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { Random } from '../runtime/random.ts';
import { HttpError } from './http-error.ts';
import { Permit, type PermitRule } from './permit.ts';

const TOKEN_BYTES = 24;

/** Addresses that mean "every interface": any of the host's addresses may then be the name. */
const WILDCARDS = new Set(['0.0.0.0', '::']);

/** A token that cannot be guessed, safe in URLs. */
export function newToken(random: Random): string {
  return Buffer.from(random.bytes(TOKEN_BYTES)).toString('base64url');
}

/** A token besides the one that may do everything. */
export interface LimitedToken extends PermitRule {
  readonly token: string;
}

export interface AccessOptions {
  /** The token that may do everything. */
  readonly token: string;
  readonly limitedTokens?: readonly LimitedToken[];
  /** The address or name that the server listens on. */
  readonly listenHost: string;
  /** Further names under which the server is reached, such as that of a reverse proxy. */
  readonly allowedHosts?: readonly string[];
}

export class Access {
  readonly #keys: readonly { readonly digest: Buffer; readonly permit: Permit }[];
  readonly #names: ReadonlySet<string>;
  readonly #anyAddress: boolean;

  constructor({ token, limitedTokens = [], listenHost, allowedHosts = [] }: AccessOptions) {
    this.#keys = [{ token }, ...limitedTokens].map(({ token, ...rule }) => ({
      digest: digest(token),
      permit: new Permit(rule),
    }));
    const names = ['localhost', '127.0.0.1', '::1', listenHost, ...allowedHosts];
    this.#names = new Set(names.map((name) => name.toLowerCase()));
    this.#anyAddress = WILDCARDS.has(listenHost);
  }

  /** @throws HttpError 403 when the request was made for a name that is not ours */
  checkHost(request: IncomingMessage): void {
    const name = hostName(request.headers.host);
    if (name === undefined) throw new HttpError(400, 'a Host header is needed');
    if (this.#names.has(name)) return;
    // An address cannot be rebound: whoever typed it meant this machine.
    if (this.#anyAddress && isIP(name) !== 0) return;
    const message = `this server is not reached as ${name}; allow the name to use it`;
    throw new HttpError(403, message, { reason: 'foreign-host' });
  }

  /** @throws HttpError 403 when a browser sent the request on behalf of another site's page */
  checkOrigin(request: IncomingMessage): void {
    const { origin, host } = request.headers;
    if (origin === undefined) return;
    if (URL.canParse(origin) && new URL(origin).host === host?.toLowerCase()) return;
    const message = 'requests of pages from elsewhere are refused';
    throw new HttpError(403, message, { reason: 'foreign-origin' });
  }

  /**
   * What the token in the Authorization header or the query allows; of one token always the same object.
   * @throws HttpError 401 when there is none, or one that we do not know
   */
  permitOf(request: IncomingMessage, query: URLSearchParams): Permit {
    const given = bearerToken(request.headers.authorization) ?? query.get('token');
    const permit = given ? this.#permitOf(digest(given)) : undefined;
    if (permit) return permit;
    const needed = given ? 'the token is wrong' : 'a token is needed';
    throw new HttpError(401, `${needed}: as Authorization: Bearer TOKEN or ?token=TOKEN`, {
      headers: { 'www-authenticate': 'Bearer' },
      reason: given ? 'wrong-token' : 'no-token',
    });
  }

  /** Compares with every token, also after one fitted. */
  #permitOf(given: Buffer): Permit | undefined {
    const fitting = this.#keys.filter(({ digest }) => timingSafeEqual(digest, given));
    return fitting[0]?.permit;
  }
}

/** Digests have one length, so that a comparison tells nothing about the token's. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function bearerToken(authorization: string | undefined): string | undefined {
  return authorization?.match(/^Bearer +(\S+)$/i)?.[1];
}

/** The name of a Host header without port, and without the brackets of an IPv6 address. */
function hostName(host: string | undefined): string | undefined {
  const match = host?.match(/^(?:\[([0-9a-f:.]+)\]|([^:[\]]+))(?::\d+)?$/i);
  return (match?.[1] ?? match?.[2])?.toLowerCase();
}
