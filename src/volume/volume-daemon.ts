import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import { askDaemon, ControlClient } from '../control/control-client.js';
import {
  devicesSchema,
  loginSchema,
  rescanSchema,
  sessionsSchema,
} from '../control/control-results.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { iscsiNamesEqual } from '../iscsi/login/target-name.js';
import type { DeviceView } from '../supervisor/session-report.js';
import { VolumeError, type VolumeFault } from './volume-error.js';

export type VolumeLogin = {
  readonly targetName: string;
  readonly portal: string;
  readonly options: Readonly<Record<string, unknown>>;
};

export type VolumeSession = { readonly sessionId: string; readonly persistent: boolean };
export type { DeviceView };

/** What volumes want of the daemon. Each call may reject with VolumeError. */
export type VolumeDaemon = {
  /** The data session to a target, if there is one. */
  sessionTo(targetName: string): Promise<VolumeSession | null>;
  /** The session's id, whether it is new or was there. */
  login(login: VolumeLogin): Promise<string>;
  devicesOf(sessionId: string): Promise<readonly DeviceView[]>;
  rescan(sessionId: string): Promise<void>;
  /** `inUse`: it stays, since a disk of it is in use; no session is fine. */
  logout(sessionId: string): Promise<'loggedOut' | 'inUse'>;
};

/** A login may try several portals, a logout writes back what the disk has in its cache. */
const LOGIN_MS_MAX = 110_000;
const QUESTION_MS_MAX = 30_000;
const DATA_SESSION = 2;

/** The daemon that listens on a control socket; each call has a connection of its own. */
export class ControlledDaemon implements VolumeDaemon {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async sessionTo(targetName: string): Promise<VolumeSession | null> {
    const { sessions } = await this.#ask(sessionsSchema, 'InitiatorSessionInfo', {});
    const found = sessions.find(
      ({ TargetiSCSIName, Type }) =>
        iscsiNamesEqual(TargetiSCSIName, targetName) && Type === DATA_SESSION,
    );
    if (found === undefined) return null;
    return { sessionId: found.UniqueSessionId, persistent: found.persistent };
  }

  async login({ targetName, portal, options }: VolumeLogin): Promise<string> {
    const params = { TargetName: targetName, TargetPortal: portal, LoginOptions: options };
    const answer = await this.#ask(loginSchema, 'LoginToTarget', params, LOGIN_MS_MAX);
    return answer.UniqueSessionId;
  }

  async devicesOf(sessionId: string): Promise<readonly DeviceView[]> {
    const { devices } = await this.#ask(devicesSchema, 'Devices', {});
    return devices.filter(({ UniqueSessionId }) => UniqueSessionId === sessionId);
  }

  async rescan(sessionId: string): Promise<void> {
    const params = { UniqueSessionId: sessionId };
    const { sessions } = await this.#ask(rescanSchema, 'Rescan', params, LOGIN_MS_MAX);
    const error = sessions[0]?.error ?? null;
    if (error !== null) throw new VolumeError('unavailable', `The LUNs cannot be read: ${error}.`);
  }

  async logout(sessionId: string): Promise<'loggedOut' | 'inUse'> {
    try {
      const params = { UniqueSessionId: sessionId };
      await this.#ask(z.object({}), 'LogoutFromTarget', params, LOGIN_MS_MAX);
    } catch (error) {
      const { cause } = error as Error;
      const code = cause instanceof UsageError ? cause.exitCode : null;
      if (code === EXIT_CODES.busy.code) return 'inUse';
      if (code !== EXIT_CODES.sessionNotFound.code) throw error;
    }
    return 'loggedOut';
  }

  async #ask<T>(
    schema: z.ZodType<T>,
    method: string,
    params: Readonly<Record<string, unknown>>,
    timeoutMs = QUESTION_MS_MAX,
  ): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const words = `The daemon has not answered ${method} in ${timeoutMs / 1000} s; try again.`;
        reject(new VolumeError('unavailable', words));
      }, timeoutMs);
    });
    try {
      return await Promise.race([this.#askOnce(schema, method, params), late]);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new VolumeError(faultOf(error), error.message, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  async #askOnce<T>(
    schema: z.ZodType<T>,
    method: string,
    params: Readonly<Record<string, unknown>>,
  ): Promise<T> {
    using client = await ControlClient.connect(this.#path);
    return await askDaemon(client, schema, method, params);
  }
}

const { connectTimeout, daemonNotRunning, daemonUnreachable, loginFailed } = EXIT_CODES;
const { notConnected, pduTimeout, timedOut, transport } = EXIT_CODES;
/** Statuses that may change soon without a change of the configuration. */
const TRY_AGAIN: ReadonlySet<number> = new Set(
  [
    ...[connectTimeout, daemonNotRunning, daemonUnreachable, loginFailed],
    ...[notConnected, pduTimeout, timedOut, transport],
  ].map(({ code }) => code),
);

function faultOf({ exitCode }: UsageError): VolumeFault {
  if (TRY_AGAIN.has(exitCode)) return 'unavailable';
  switch (exitCode) {
    case EXIT_CODES.invalidUse.code:
      return 'invalid';
    case EXIT_CODES.authenticationFailed.code:
      return 'unauthenticated';
    case EXIT_CODES.notPermitted.code:
      return 'denied';
    case EXIT_CODES.loginRefused.code:
    case EXIT_CODES.nothingFound.code:
      return 'notFound';
    case EXIT_CODES.sessionExists.code:
    case EXIT_CODES.notSupported.code:
    case EXIT_CODES.busy.code:
      return 'refused';
    default:
      return 'failed';
  }
}
