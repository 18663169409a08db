import { createHmac, timingSafeEqual } from 'node:crypto';

/** The claims of a visitor token. */
export interface VisitorTokenClaims {
  readonly organizationId: string;
  readonly visitorId: string;
  /** How often the visitor's tokens had been revoked when this token was made. */
  readonly generation: number;
  /** ms */
  readonly expiresAt: number;
  /** Distinguishes this token from all others. */
  readonly id: string;
}

/** Version 1, the only one: another format gets another prefix, and no claim inside a token ever says how to verify it. */
const VERSION = 'tlv1';
const TOKEN = /^tlv1\.([A-Za-z0-9_-]{1,1000})\.([A-Za-z0-9_-]{43})$/;

/**
 * Signs visitor tokens and recognizes its signatures: `tlv1.CLAIMS.MAC`, the claims as base64url of a JSON list, the MAC HMAC-SHA-256 over
 * everything before it, under a key that is derived from MASTER_KEY and used only for this.
 */
export class VisitorTokenSigner {
  constructor(private readonly key: Buffer) {}

  sign({ organizationId, visitorId, generation, expiresAt, id }: VisitorTokenClaims): string {
    const claims = Buffer.from(JSON.stringify([organizationId, visitorId, generation, expiresAt, id])).toString('base64url');
    return `${VERSION}.${claims}.${this.mac(claims)}`;
  }

  /** The claims of a token with a valid signature, expired or not; undefined for every other text. */
  read(token: string): VisitorTokenClaims | undefined {
    const [, claims, mac] = TOKEN.exec(token) ?? [];
    // Compares the MACs in their encoded form, so that no second spelling of a MAC is accepted.
    if (claims === undefined || mac === undefined || !timingSafeEqual(Buffer.from(mac), Buffer.from(this.mac(claims)))) return undefined;
    const [organizationId, visitorId, generation, expiresAt, id] = JSON.parse(Buffer.from(claims, 'base64url').toString()) as [
      string,
      string,
      number,
      number,
      string,
    ];
    return { organizationId, visitorId, generation, expiresAt, id };
  }

  private mac(claims: string): string {
    return createHmac('sha256', this.key).update(`${VERSION}.${claims}`).digest('base64url');
  }
}
