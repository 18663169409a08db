// Loaded into a process by NODE_OPTIONS=--import: its machine's clock is off by as many milliseconds as the file that CLOCK_SKEW_FILE names
// says, as when an operator or NTP sets it. SIGUSR2 reads the file again. Time that is measured (performance.now, timers) goes on as ever.
import { readFileSync } from 'node:fs';

const file = process.env.CLOCK_SKEW_FILE ?? '';
const RealDate = Date;
let skew = 0;
const read = () => {
  skew = Number(readFileSync(file, 'utf8'));
};
read();
process.on('SIGUSR2', read);

globalThis.Date = class Date extends RealDate {
  constructor(...given) {
    if (given.length === 0) super(RealDate.now() + skew);
    else super(...given);
  }

  static now() {
    return RealDate.now() + skew;
  }
};
