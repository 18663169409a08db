/** Messages that a sender may send at once, and how many a second it may send for long. */
const BURST = 20;
const PER_SECOND = 4;
/** Messages beyond that, after which a sender is sent away. */
const PATIENCE = 200;

interface Allowance {
  left: number;
  over: number;
  /** ms */
  at: number;
}

/** How many messages each sender may send. */
export class Allowances<Sender extends object> {
  readonly #of = new WeakMap<Sender, Allowance>();

  constructor(private readonly clock: { now(): number }) {}

  /** 'no': this message is left out, since presence is renewed anyway. 'no more': the sender goes on in spite of it. */
  take(sender: Sender): 'yes' | 'no' | 'no more' {
    const now = this.clock.now();
    const own = this.#of.get(sender) ?? { left: BURST, over: 0, at: now };
    this.#of.set(sender, own);
    own.left = Math.min(BURST, own.left + (Math.max(0, now - own.at) * PER_SECOND) / 1_000);
    own.at = now;
    if (own.left >= 1) {
      own.left--;
      own.over = 0;
      return 'yes';
    }
    return ++own.over > PATIENCE ? 'no more' : 'no';
  }
}
