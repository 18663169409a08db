import { promises as dns } from 'node:dns';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/** Ports that anybody may name; every other port only in the operator's networks. */
export const PORTS: readonly number[] = [443, 4443, 8443, 9443];

/** How long a name server may take (ms), and how often it is asked. */
const NAME_MS = 2_000;
const NAME_TRIES = 2;

/** The address of a request must not be reached from here. The message names no address inside the operator's network. */
export class NotReachable extends Error {
  override readonly name = 'NotReachable';
}

/** The host has no address, or no name server answered. It may have one later. */
export class NotResolved extends Error {
  override readonly name = 'NotResolved';
}

/** The addresses of a name. @throws NotResolved */
export type Resolve = (name: string) => Promise<readonly string[]>;

/** Where a request goes, as a URL says it. */
export interface Target {
  readonly protocol: string;
  /** A name, or an address; a version 6 address without brackets. */
  readonly host: string;
  readonly port: number;
}

/**
 * Decides where requests from here may go: to public addresses over https at a port of PORTS, and to the operator's networks over http too
 * and at any port. It knows addresses only: a name is as good as every address that it has at the time of the connection.
 */
export class Reachable {
  private readonly networks: readonly ReturnType<typeof ipaddr.parseCIDR>[];

  /**
   * @param networks CIDRs of the operator
   * @throws Error for a text that is not a network
   */
  constructor(
    networks: readonly string[] = [],
    readonly resolve: Resolve = namesFrom(),
  ) {
    this.networks = networks.map((network) => ipaddr.parseCIDR(network));
  }

  /** Why a URL can never be reached, whatever its name resolves to; undefined when it may be. */
  faultOf(text: string): string | undefined {
    const target = URL.canParse(text) ? targetOf(new URL(text)) : undefined;
    if (target === undefined) return 'must be an https address, without user and password';
    if (isIP(target.host) !== 0) return this.faultOfAddress(target, target.host);
    return this.isForPublic(target) || this.networks.length > 0 ? undefined : this.ruleFor(target);
  }

  /** Like faultOf(), for the addresses that its name has now. A name without an address has no fault. */
  async faultNow(text: string): Promise<string | undefined> {
    const fault = this.faultOf(text);
    if (fault !== undefined) return fault;
    const target = targetOf(new URL(text));
    if (target === undefined || isIP(target.host) !== 0) return undefined;
    try {
      await this.addressesOf(target);
      return undefined;
    } catch (error) {
      if (error instanceof NotReachable) return error.message;
      if (error instanceof NotResolved) return undefined;
      throw error;
    }
  }

  /**
   * The addresses of a target, all of which may be reached. One that may not spoils the others: a name with mixed answers is a mistake or an
   * attack.
   * @throws NotReachable, NotResolved
   */
  async addressesOf(target: Target): Promise<readonly string[]> {
    const addresses = isIP(target.host) === 0 ? await this.resolve(target.host) : [target.host];
    if (addresses.length === 0) throw new NotResolved(`${target.host} has no address`);
    for (const address of addresses) this.assertAddress(target, address);
    return addresses;
  }

  /** @throws NotReachable */
  assertAddress(target: Target, address: string): void {
    const fault = this.faultOfAddress(target, address);
    if (fault !== undefined) throw new NotReachable(fault);
  }

  private faultOfAddress(target: Target, text: string): string | undefined {
    // What is no plain address, such as one with a zone, is not reached.
    const address = isIP(text) !== 0 && ipaddr.isValid(text) ? ipaddr.process(text) : undefined;
    if (address !== undefined && this.networks.some((network) => address.kind() === network[0].kind() && address.match(network)))
      return undefined;
    if (address === undefined || !isPublic(address)) return 'must not lead to a private, local or reserved address';
    return this.isForPublic(target) ? undefined : this.ruleFor(target);
  }

  private isForPublic({ protocol, port }: Target): boolean {
    return protocol === 'https:' && PORTS.includes(port);
  }

  private ruleFor({ protocol }: Target): string {
    return protocol === 'https:' ? `must use one of the ports ${PORTS.join(', ')}` : 'must be an https address, without user and password';
  }
}

/** The networks of a list with commas. @throws Error that names the wrong one */
export function parseNetworks(text: string): readonly string[] {
  const networks = text.split(',').map((one) => one.trim());
  for (const network of networks)
    if (!ipaddr.isValidCIDR(network)) throw new Error(`${network} is no network; one is written 10.1.0.0/16 or fd00::/8`);
  return networks;
}

/**
 * Public addresses by which clouds serve their own machines metadata and secrets: Azure's and that of Equinix Metal. Those of the other
 * clouds are link-local, shared, unique local or reserved.
 */
const OF_CLOUDS: ReadonlySet<string> = new Set(['168.63.129.16', '192.80.8.124']);

const GLOBAL_V6 = ipaddr.parseCIDR('2000::/3');

/** Addresses of version 6 are public only within the part that is given out: whatever embeds one of version 4 lies outside, or has a range. */
const isPublic = (address: ipaddr.IPv4 | ipaddr.IPv6) =>
  address.range() === 'unicast' && !OF_CLOUDS.has(address.toString()) && (address.kind() === 'ipv4' || address.match(GLOBAL_V6));

/** Undefined for a URL that is neither http nor https, that has credentials, or that has no host. */
export function targetOf({ protocol, hostname, port, username, password }: URL): Target | undefined {
  if ((protocol !== 'https:' && protocol !== 'http:') || username !== '' || password !== '' || hostname === '') return undefined;
  return {
    protocol,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port),
  };
}

/** Linux, macOS and BSD. */
const HOSTS_FILE = '/etc/hosts';

/**
 * Looks names up in the hosts file, and then asks the name servers for the full name. The system's own lookup would hold one of the process's few
 * threads for as long as a name server is silent, and a few silent ones would stop whatever else needs a thread.
 * @param servers addresses of name servers, with ports; the system's when absent
 */
export function namesFrom(servers?: readonly string[]): Resolve {
  return async (name) => {
    const known = await inHostsFile(name);
    if (known.length > 0) return known;
    const resolver = new dns.Resolver({ timeout: NAME_MS, tries: NAME_TRIES });
    if (servers !== undefined) resolver.setServers(servers);
    // With several servers the tries add up.
    const timer = setTimeout(() => resolver.cancel(), NAME_MS * NAME_TRIES);
    const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    clearTimeout(timer);
    const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    if (addresses.length > 0) return addresses;
    const codes = answers.map((answer) => (answer.status === 'rejected' ? (answer.reason as NodeJS.ErrnoException).code : undefined));
    throw new NotResolved(
      codes.some((code) => code === dns.TIMEOUT || code === dns.CANCELLED)
        ? `no name server answered for ${name}`
        : `${name} has no address`,
    );
  };
}

/** The addresses that the hosts file has for a name. It may change at any time, and is small. */
async function inHostsFile(name: string): Promise<readonly string[]> {
  const text = await readFile(HOSTS_FILE, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw error;
  });
  const wanted = name.toLowerCase();
  return text.split('\n').flatMap((line) => {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    return isIP(address) !== 0 && names.some((one) => one.toLowerCase() === wanted) ? [address] : [];
  });
}
