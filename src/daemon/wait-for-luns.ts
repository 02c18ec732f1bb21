import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type { SessionHost } from './session-host.js';

/** Interval of the poll for the LUNs; an event polls at once. */
const LOOK_MS = 1000;

type Host = Pick<SessionHost, 'listen' | 'usableLuns'>;

export type WantedLun = { readonly targetName: string; readonly lun: number };

/** `<target-name>/<lun>` each. Throws UsageError. */
export function parseWantedLuns(texts: readonly string[]): WantedLun[] {
  return texts.map((text) => {
    const slash = text.lastIndexOf('/');
    const targetName = text.slice(0, Math.max(slash, 0));
    const lun = text.slice(slash + 1);
    if (/^\d{1,8}$/.test(lun) && iscsiNameFault(targetName) === null) {
      return { targetName, lun: Number(lun) };
    }
    throw new UsageError(`--wait-for '${text}': the form is <target-name>/<lun>, e.g. iqn.…/0.`);
  });
}

/** Resolves when all are usable, or at an abort. Throws UsageError 33 that names the missing. */
export async function waitForLuns(
  host: Host,
  wanted: readonly WantedLun[],
  limits: {
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
    readonly onWaiting: (missing: readonly string[]) => void;
  },
): Promise<void> {
  const startedAtMs = performance.now();
  let told = '';
  for (;;) {
    const there = await host.usableLuns();
    const missing = namesOf(wanted).filter((name) => !there.has(name));
    if (missing.length === 0 || limits.signal.aborted) return;
    const leftMs = startedAtMs + limits.timeoutMs - performance.now();
    if (leftMs <= 0) {
      const seconds = limits.timeoutMs / 1000;
      throw new UsageError(`After ${seconds} s these LUNs are missing: ${missing.join(', ')}.`, {
        exitCode: EXIT_CODES.timedOut.code,
        code: 'ERR_LUNS_MISSING',
      });
    }
    if (told !== missing.join()) limits.onWaiting(missing);
    told = missing.join();
    await nextChange(host, Math.min(leftMs, LOOK_MS), limits.signal);
  }
}

function namesOf(wanted: readonly WantedLun[]): string[] {
  return wanted.map((one) => `${one.targetName}/${one.lun}`);
}

function nextChange(host: Host, waitMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      unlisten();
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, waitMs);
    const unlisten = host.listen(finish);
    signal.addEventListener('abort', finish, { once: true });
  });
}
