import { invariant } from './errors.js';

/** The state that follows each event in each state; what is not in it must not happen. */
type StateTable<State extends string, Event extends string> = Readonly<
  Record<State, Partial<Readonly<Record<Event, State>>>>
>;

/**
 * The moves of a state machine, as a function of state and event; it throws InvariantError if the
 * table has no such move. `what` names the machine in that error.
 */
export function movesOf<State extends string, Event extends string>(
  what: string,
  table: StateTable<State, Event>,
): (state: State, event: Event) => State {
  return (state, event) => {
    const next = table[state][event];
    invariant(next, `${what}: no move from ${state} on ${event}`);
    return next;
  };
}
