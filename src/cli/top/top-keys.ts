import { SORTS, selectedId, sortedRows, type TopState } from './top-state.js';

const PAGE_LINES = 10;

/** What each key does. */
const KEYS: Readonly<Record<string, (state: TopState) => TopState>> = {
  up: (state) => moved(state, -1),
  k: (state) => moved(state, -1),
  down: (state) => moved(state, 1),
  j: (state) => moved(state, 1),
  home: (state) => moved(state, -Infinity),
  end: (state) => moved(state, Infinity),
  pagedown: (state) => ({ ...state, scrolledLines: state.scrolledLines + PAGE_LINES }),
  pageup: (state) => ({
    ...state,
    scrolledLines: Math.max(0, state.scrolledLines - PAGE_LINES),
  }),
  return: toggled,
  space: toggled,
  a: allToggled,
  s: (state) => ({
    ...state,
    sort: SORTS[(SORTS.indexOf(state.sort) + 1) % SORTS.length] ?? 'login',
    scrolledLines: 0,
  }),
  r: (state) => ({ ...state, isReversed: !state.isReversed, scrolledLines: 0 }),
  q: (state) => ({ ...state, hasEnded: true }),
  'ctrl-c': (state) => ({ ...state, hasEnded: true }),
};

/** The keys of the last line, the most important first: a narrow terminal shows fewer. */
export const KEY_HELP: readonly (readonly [key: string, action: string])[] = [
  ['q', 'quit'],
  ['↑↓', 'select'],
  ['Enter', 'LUNs and paths'],
  ['s', 'sort'],
  ['r', 'reverse'],
  ['a', 'unfold all'],
  ['PgDn', 'scroll'],
];

/** The state after a key: a name of Node's `readline`, or the character. Others change nothing. */
export function keyPressed(state: TopState, key: string): TopState {
  return Object.hasOwn(KEYS, key) ? (KEYS[key]?.(state) ?? state) : state;
}

function moved(state: TopState, by: number): TopState {
  const ids = sortedRows(state).map(({ view }) => view.UniqueSessionId);
  const selected = selectedId(state);
  if (selected === null) return state;
  const at = Math.min(Math.max(ids.indexOf(selected) + by, 0), ids.length - 1);
  return { ...state, selected: ids[at] ?? null, scrolledLines: 0 };
}

function toggled(state: TopState): TopState {
  const selected = selectedId(state);
  if (selected === null) return state;
  const unfolded = new Set(state.unfolded);
  if (!unfolded.delete(selected)) unfolded.add(selected);
  return { ...state, unfolded, scrolledLines: 0 };
}

/** Folds all if all are unfolded. */
function allToggled(state: TopState): TopState {
  const all = state.rows.map(({ view }) => view.UniqueSessionId);
  const unfolded = new Set(all.every((id) => state.unfolded.has(id)) ? [] : all);
  return { ...state, unfolded, scrolledLines: 0 };
}
