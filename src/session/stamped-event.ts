import type { EventBody, StackEvent } from '../config/contract.js';

/** The event, now and of this session. */
export function stampedEvent(body: EventBody, sessionId: string): StackEvent {
  return { ...body, time: new Date().toISOString(), sessionId } as StackEvent;
}
