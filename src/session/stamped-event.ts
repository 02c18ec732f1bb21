import type { EventBody, ProductEvent } from '../config/contract.js';

/** The event, now and of this session. */
export function stampedEvent(body: EventBody, sessionId: string): ProductEvent {
  return { ...body, time: new Date().toISOString(), sessionId } as ProductEvent;
}
