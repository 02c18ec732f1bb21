import type { LunStatus } from '../supervisor/session-report.js';
import { humanBytes } from './print.js';

/** `away, removed in 57 s`: what a LUN is doing. */
export function lunStateText({ lunState, removalInSeconds }: LunStatus): string {
  if (removalInSeconds === null) return lunState;
  return `${lunState}, removed in ${Math.round(removalInSeconds)} s`;
}

/** `, 1.0 MiB not flushed for 3 s`: what of it would be written again; empty for nothing. */
export function retainedText({ retainedBytes, retainedAgeSeconds }: LunStatus): string {
  if (retainedBytes === 0) return '';
  return `, ${humanBytes(retainedBytes)} not flushed for ${Math.round(retainedAgeSeconds)} s`;
}

/** A line for each LUN that does not serve: what it is doing, and why. */
export function lunTroubles(luns: readonly LunStatus[]): string[] {
  return luns
    .filter(({ lunState }) => lunState !== 'serving')
    .map((lun) => {
      const device = lun.device === null ? '' : ` (${lun.device})`;
      const why = lun.lastError === null ? '' : `: ${lun.lastError}`;
      return `LUN ${lun.lun}${device} is ${lunStateText(lun)}${why}`;
    });
}
