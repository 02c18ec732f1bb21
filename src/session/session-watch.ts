import type { EventBody, SessionState, StackEvent, StackHooks } from '../config/contract.js';

/** Stands between a stack and its hooks: knows the session's state, and tells events of its own. */
export class SessionWatch implements StackHooks {
  readonly signal: AbortSignal;
  state: SessionState = 'loggingIn';
  onLoggedIn: () => void = () => undefined;
  readonly #hooks: StackHooks;
  readonly #sessionId: string;

  constructor(hooks: StackHooks, sessionId: string) {
    this.signal = hooks.signal;
    this.#hooks = hooks;
    this.#sessionId = sessionId;
  }

  onEvent(event: StackEvent): void {
    this.#hooks.onEvent(event);
    if (event.event !== 'sessionState') return;
    this.state = event.to;
    if (event.to === 'loggedIn') this.onLoggedIn();
  }

  tell(body: EventBody): void {
    const time = new Date().toISOString();
    this.#hooks.onEvent({ ...body, time, sessionId: this.#sessionId } as StackEvent);
  }
}
