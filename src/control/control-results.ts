import * as z from 'zod';
import {
  deviceSchema,
  diskBytes,
  sessionSchema,
  statisticsSchema,
} from '../supervisor/session-report.js';

/**
 * What the control methods answer and the commands print with `--json`, beside the views of a
 * session. docs/json-schema is made of these; programs rely on them.
 */

const id = z.string().regex(/^[0-9a-f]{16}$/);

/** The answer of SendTargets. */
export const targetsSchema = z.object({
  targets: z.array(
    z.object({
      name: z.string(),
      portals: z.array(
        z.object({
          host: z.string(),
          port: z.number().int(),
          portalGroupTag: z.number().int().optional(),
        }),
      ),
    }),
  ),
  /** What is left out of the list, and what is odd about the target. */
  warnings: z.array(z.string()),
});

export const loginSchema = z.object({
  UniqueSessionId: id,
  /** The session existed already, with the requested options. */
  existed: z.boolean(),
  session: sessionSchema,
});

export const sessionsSchema = z.object({ sessions: z.array(sessionSchema) });
export const devicesSchema = z.object({ devices: z.array(deviceSchema) });
export const statisticsListSchema = z.object({ statistics: z.array(statisticsSchema) });

export const changedSchema = z.object({
  option: z.string(),
  before: z.union([z.number(), z.literal('never')]),
  value: z.union([z.number(), z.literal('never')]),
  applies: z.enum(['now', 'nextAttempt', 'nextReconnect']),
});

export const rescanSchema = z.object({
  sessions: z.array(
    z.object({
      UniqueSessionId: id,
      added: z.array(z.number().int()),
      error: z.string().nullable(),
    }),
  ),
});

export const persistentSchema = z.object({
  UniqueSessionId: id,
  InitiatorNode: z.string(),
  TargetName: z.string(),
  TargetPortal: z.object({ host: z.string(), port: z.number().int() }),
  SessionType: z.enum(['data', 'boot', 'informational']),
  LoginOptions: z.record(z.string(), z.unknown()),
  /** Of its session; null while there is none. */
  state: z.string().nullable(),
});
export const persistentListSchema = z.object({ logins: z.array(persistentSchema) });

const state = z.enum(['loggingIn', 'loggedIn', 'reconnecting', 'removed', 'loggingOut', 'closed']);
const head = { time: z.iso.datetime(), sessionId: id };
const lun = { ...head, lun: z.number().int(), device: z.string().optional() };

/** One line of `events --json`, and of `serve` and `attach` with `--json`. */
export const eventSchema = z.discriminatedUnion('event', [
  z.object({
    event: z.literal('ready'),
    ...lun,
    socket: z.string().optional(),
    uri: z.string().optional(),
    sizeBytes: diskBytes,
    blockSizeBytes: z.number().int(),
    readOnly: z.boolean(),
  }),
  z.object({
    event: z.literal('sessionState'),
    ...head,
    from: state,
    to: state,
    reason: z.string(),
  }),
  z.object({ event: z.literal('deviceAttached'), ...lun }),
  z.object({
    event: z.literal('deviceHeld'),
    ...lun,
    requests: z.number().int(),
    bytes: z.number().int(),
  }),
  z.object({ event: z.literal('deviceReleased'), ...lun }),
  z.object({ event: z.literal('deviceRemoved'), ...lun, reason: z.string() }),
  z.object({
    event: z.literal('writesReplayed'),
    ...lun,
    requests: z.number().int().nonnegative(),
    bytes: z.number().int().nonnegative(),
    milliseconds: z.number().nonnegative(),
    reason: z.enum(['sessionLost', 'cacheLost', 'takenOver']),
  }),
  z.object({ event: z.literal('deviceResized'), ...lun, sizeBytes: diskBytes }),
  z.object({
    event: z.literal('pathState'),
    ...head,
    lun: z.number().int(),
    portal: z.string(),
    target: z.string().optional(),
    from: z.string(),
    to: z.string(),
    reason: z.string(),
  }),
  z.object({
    event: z.literal('pathSwitched'),
    ...head,
    lun: z.number().int(),
    from: z.string(),
    to: z.string(),
    reason: z.string(),
  }),
  z.object({ event: z.literal('portalChanged'), ...head, from: z.string(), to: z.string() }),
  z.object({
    event: z.literal('loginRefused'),
    ...head,
    statusClass: z.number().int(),
    statusDetail: z.number().int(),
    explanation: z.string(),
  }),
  z.object({
    event: z.literal('ioError'),
    ...lun,
    operation: z.string(),
    offsetBytes: diskBytes,
    lengthBytes: z.number().int(),
    errno: z.string(),
    reason: z.string(),
  }),
  z.object({ event: z.literal('deviceInUse'), ...lun, holders: z.string() }),
  z.object({
    event: z.literal('targetQuirk'),
    ...head,
    quirk: z.string(),
    section: z.string(),
    what: z.string(),
  }),
  z.object({ event: z.literal('warning'), ...head, message: z.string() }),
  z.object({ event: z.literal('closed'), ...head, reason: z.string() }),
]);

/** What a command prints on standard error when it fails with `--json`. */
const errorSchema = z.object({
  event: z.literal('error'),
  code: z.string(),
  exitCode: z.number().int(),
  message: z.string(),
  nextStep: z.string(),
  portal: z.string().optional(),
  target: z.string().optional(),
  lun: z.number().int().optional(),
});

/** Each published schema by the name of its file. */
export const PUBLISHED_SCHEMAS = {
  targets: targetsSchema,
  login: loginSchema,
  sessions: sessionsSchema,
  session: sessionSchema,
  devices: devicesSchema,
  statistics: statisticsListSchema,
  changed: changedSchema,
  rescan: rescanSchema,
  persistent: persistentListSchema,
  event: eventSchema,
  error: errorSchema,
} as const;
