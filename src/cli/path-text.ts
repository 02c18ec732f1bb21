import { isPathUsable, type PathView } from '../supervisor/path-report.js';

/** `1/2`: paths over which requests may go, and all. */
export function usablePathsText(paths: readonly PathView[]): string {
  if (paths.length === 0) return '-';
  return `${paths.filter(isPathUsable).length}/${paths.length}`;
}

/** `group 1, preferred, not trusted`; a dash for none of these. */
export function groupText({ group, preferred, suspect }: PathView): string {
  const notes = [
    group === null ? '' : `group ${group}`,
    preferred ? 'preferred' : '',
    suspect ? 'not trusted' : '',
  ].filter((note) => note !== '');
  return notes.length === 0 ? '-' : notes.join(', ');
}

/** `LUN 0  192.0.2.1:3260  optimized  group 1, preferred, 3 commands, 1 failure`. */
export function pathText(path: PathView): string {
  const { lun, portal, pathState, commandsInFlight, failures } = path;
  const notes = [
    groupText(path),
    counted(commandsInFlight, 'command'),
    failures === 0 ? '' : counted(failures, 'failure'),
  ].filter((note) => note !== '' && note !== '-');
  const why = isPathUsable(path) ? '' : `  ${path.reason}`;
  return `LUN ${lun}  ${portal}  ${pathState}  ${notes.join(', ')}${why}`;
}

/** A line for each path that cannot be used. */
export function pathTroubles(paths: readonly PathView[]): string[] {
  return paths
    .filter((path) => !isPathUsable(path))
    .map(({ lun, portal, pathState, reason }) => {
      return `LUN ${lun}: the path over ${portal} is ${pathState}: ${reason}`;
    });
}

/** `1 path`, `2 paths`. */
export function counted(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
