import type { SessionState } from '../config/contract.js';
import type { SessionEffect } from '../iscsi/session/session-effect.js';

type StateChanged = Extract<SessionEffect, { type: 'stateChanged' }>;

/** What a session reports, with its states as users see them: `removed` is one of them. */
export type SessionEvent =
  | Exclude<SessionEffect, StateChanged>
  | (Omit<StateChanged, 'from' | 'to'> & {
      readonly from: SessionState;
      readonly to: SessionState;
    });
