import { LRUCache } from 'lru-cache';
import type { PublicEventType } from '../conversations/public-event.js';
import type { Recorded } from '../event-store/aggregate.js';
import { type EventStore, type Position, streamName } from '../event-store/event-store.js';
import { readAsOf } from '../event-store/states-as-of.js';
import type { RuleAt } from './ask.js';
import { compareRules, isInForce, type Rule, ruleAggregate, type RuleEvent, type TimeTrigger } from './rule.js';

/** The memory for rules (bytes); an organization without rules takes some hundred. */
const CACHE_BYTES = 32 * 1024 * 1024;

/** A rule with a time trigger. */
export interface TimedRule extends RuleAt {
  readonly trigger: TimeTrigger;
}

/** The rules of an organization that are asked about events at a place of the log. */
export interface OrganizationRules {
  /** By the event that triggers them, in their order. */
  readonly triggered: ReadonlyMap<PublicEventType, readonly RuleAt[]>;
  readonly timed: readonly TimedRule[];
  /** No event needs to be looked at. */
  readonly none: boolean;
}

/** A rule after its event `revision`. Only what is in force is kept whole: there are few such rules, and any number of others. */
interface KnownRule {
  readonly rule: Rule | null;
  readonly revision: number;
  readonly bytes: number;
}

interface Known {
  readonly all: ReadonlyMap<string, KnownRule>;
  /** Rules that were not kept whole and have changed since. They have to be read again. */
  readonly changed: ReadonlySet<string>;
  readonly rules: OrganizationRules;
}

/** Reads the rules of organizations, for a follower of the log that hands on the events of rules with follow(). */
export class RulesInForce {
  readonly #known = new LRUCache<string, Known>({
    maxSize: CACHE_BYTES,
    sizeCalculation: ({ all }) => [...all.values()].reduce((sum, { bytes }) => sum + bytes, 512),
  });

  /** @param list answers the ids of all rules that an organization has had up to a position, or more */
  constructor(
    private readonly store: EventStore,
    private readonly list: (organizationId: string, position: Position) => Promise<readonly string[]>,
  ) {}

  /** The rules as in memory; undefined when they are not, and of() has to read them. */
  recall(organizationId: string): OrganizationRules | undefined {
    const known = this.#known.get(organizationId);
    return known?.changed.size === 0 ? known.rules : undefined;
  }

  /** The rules by their own events up to a position. @throws StoreUnavailable, UnknownEvent, and what `list` throws */
  async of(organizationId: string, position: Position): Promise<OrganizationRules> {
    const known = this.#known.get(organizationId);
    if (known?.changed.size === 0) return known.rules;
    const all = new Map(known?.all);
    for (const id of known?.changed ?? (await this.list(organizationId, position))) {
      const stream = streamName(ruleAggregate.kind, organizationId, id);
      const { state: rule, revision } = await readAsOf(this.store, ruleAggregate, stream, (event) => event.position <= position);
      if (revision >= 0) all.set(id, keptOf(rule, revision));
    }
    return this.#keep(organizationId, all, new Set());
  }

  /** Takes the next event of a rule, in the order of the log. */
  follow(organizationId: string, id: string, event: Recorded<RuleEvent>): void {
    const known = this.#known.get(organizationId);
    if (known === undefined) return;
    const { rule, revision } = known.all.get(id) ?? { rule: ruleAggregate.initial, revision: -1 };
    if (revision >= event.revision) return;
    if (rule === null || known.changed.has(id)) {
      this.#keep(organizationId, known.all, new Set(known.changed).add(id));
      return;
    }
    if (revision !== event.revision - 1) return void this.#known.delete(organizationId);
    const next = keptOf(ruleAggregate.evolve(rule, event), event.revision);
    this.#keep(organizationId, new Map(known.all).set(id, next), known.changed);
  }

  /** The follower begins again elsewhere in the log. */
  forget(): void {
    this.#known.clear();
  }

  #keep(organizationId: string, all: Known['all'], changed: Known['changed']): OrganizationRules {
    const rules = arranged(all);
    this.#known.set(organizationId, { all, changed, rules });
    return rules;
  }
}

const keptOf = (rule: Rule, revision: number): KnownRule =>
  isInForce(rule) ? { rule, revision, bytes: 256 + 2 * JSON.stringify(rule).length } : { rule: null, revision, bytes: 256 };

function arranged(all: Known['all']): OrganizationRules {
  const triggered = new Map<PublicEventType, RuleAt[]>();
  const timed: TimedRule[] = [];
  const inForce = [...all].flatMap(([id, { rule, revision }]) => (rule === null ? [] : [{ id, rule, revision }]));
  for (const one of inForce.sort(compareRules)) {
    const { trigger } = one.rule;
    if (typeof trigger !== 'string') timed.push({ ...one, trigger });
    else triggered.set(trigger, [...(triggered.get(trigger) ?? []), one]);
  }
  return { triggered, timed, none: inForce.length === 0 };
}

/** The rules that one event triggers by any of its public events, in their order. */
export function rulesTriggeredBy({ triggered }: OrganizationRules, events: readonly PublicEventType[]): readonly RuleAt[] {
  const found = events.flatMap((type) => triggered.get(type) ?? []);
  return events.length > 1 && found.length > 1 ? found.sort(compareRules) : found;
}
