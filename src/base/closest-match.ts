/** Words longer than this are not compared: no name of ours comes near it. */
const WORD_LENGTH_MAX = 64;

/**
 * The candidate most like `word`, for "did you mean …?"; `undefined` when none is near. Case,
 * dashes and underscores make no difference, so `removal-latency` is near `removalLatency`.
 */
export function closestMatch(word: string, candidates: readonly string[]): string | undefined {
  const wanted = plain(word);
  if (wanted.length > WORD_LENGTH_MAX) return undefined;
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of candidates) {
    const text = plain(candidate);
    const distance = text.startsWith(wanted) && wanted.length > 3 ? 1 : editDistance(wanted, text);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function plain(word: string): string {
  return word.toLowerCase().replace(/[-_]/g, '');
}

/** Levenshtein distance: single-letter changes that make `left` into `right`. */
function editDistance(left: string, right: string): number {
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= right.length; column += 1) {
      const change = left[row - 1] === right[column - 1] ? 0 : 1;
      current.push(
        Math.min(
          (previous[column] ?? 0) + 1,
          (current[column - 1] ?? 0) + 1,
          (previous[column - 1] ?? 0) + change,
        ),
      );
    }
    previous = current;
  }
  return previous[right.length] ?? 0;
}
