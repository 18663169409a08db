import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { eventStoreContract } from './event-store.contract.js';

eventStoreContract({
  name: 'memory',
  open: () => Promise.resolve(new MemoryEventStore()),
  cannot: {
    'second client': 'the log lives in the object',
    server: 'there is none',
    'bounded memory': 'the log itself is in the memory of the process',
  },
});
