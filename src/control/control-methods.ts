import * as z from 'zod';
import { closestMatch } from '../base/closest-match.js';
import { productError, UsageError } from '../base/errors.js';
import type { ProductEvent } from '../config/contract.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { type PortalAddress, readPortal } from '../iscsi/login/portal.js';
import { discover } from '../session/discovery-session.js';
import { queryCapacity, queryInquiry, queryReportLuns } from '../session/scsi-queries.js';
import type { DaemonSession } from '../supervisor/daemon-session.js';
import { setSessionOption } from '../supervisor/live-options.js';
import { pathOf } from '../supervisor/one-path.js';
import { type LoginParams, resolveLogin, sessionOptionsOf } from '../supervisor/resolved-login.js';
import type { SessionRecord } from '../supervisor/session-record.js';
import { viewDevices, viewSession, viewStatistics } from '../supervisor/session-report.js';
import type { Supervisor } from '../supervisor/supervisor.js';
import { type CallMethod, type ControlClient, RpcFaultError } from './control-connection.js';
import { faultText, PROTOCOL_VERSION, RpcCode } from './control-protocol.js';

/** What the methods work on. */
type ControlSubject = {
  readonly supervisor: Supervisor;
  readonly version: string;
  readonly nowMs: () => number;
};

type Method<Params> = {
  readonly params: z.ZodType<Params>;
  run(params: Params, subject: ControlSubject, client: ControlClient): Promise<unknown>;
};

const sessionId = z.string().regex(/^[0-9a-f]{16}$/, 'a UniqueSessionId has 16 hex digits');
const lun = z.number().int().min(0).max(0xff_ffff);
const options = z.record(z.string().max(64), z.unknown());

const portal = z
  .string()
  .max(512)
  .transform((text, context): PortalAddress => {
    const address = readPortal(text);
    if (!('fault' in address)) return { host: address.host, port: address.port };
    context.addIssue(address.fault);
    return z.NEVER;
  });

/** Session types by name, or by Microsoft's numbers. */
const sessionType = z
  .union([z.enum(['data', 'boot', 'informational']), z.literal([1, 2, 3])])
  .transform((value) => {
    if (value === 1) return 'informational';
    if (value === 2) return 'data';
    return value === 3 ? 'boot' : value;
  });

/** Parameters of MSiSCSI's LoginToTarget that we have no use for: refused, never passed over. */
export const UNSUPPORTED_PARAMS = {
  SecurityFlags: 'IPsec: the network has to give it',
  Key: 'IPsec: the network has to give it',
  Password: 'a secret in a request: name its file with LoginOptions.chapSecretFile',
  InitiatorAlias: 'an alias of the initiator',
  UniqueIdForISID: 'an ISID of the caller: each session keeps its own',
  Mappings: 'mappings of LUNs: LoginOptions.luns names those to use',
  PortNumber: 'a choice of initiator ports: there is one',
} as const;

const unsupported = Object.fromEntries(
  Object.keys(UNSUPPORTED_PARAMS).map((name) => [name, z.unknown().optional()]),
) as Record<keyof typeof UNSUPPORTED_PARAMS, z.ZodOptional<z.ZodUnknown>>;

const loginParams = z.strictObject({
  TargetName: z.string().max(223),
  TargetPortal: portal,
  SessionType: sessionType.default('data'),
  PersistentLogin: z.boolean().default(false),
  InitiatorNode: z.string().max(223).optional(),
  Username: z.string().max(255).optional(),
  LoginOptions: options.default({}),
  ...unsupported,
});

const noParams = z.strictObject({});
const sessionOnly = z.strictObject({ UniqueSessionId: sessionId });

const subscribers = new WeakSet<ControlClient>();

const METHODS = {
  Version: method(noParams, async (_params, { version }) => ({
    protocolVersion: PROTOCOL_VERSION,
    version,
  })),
  SendTargets: method(
    z.strictObject({ TargetPortal: portal, LoginOptions: options.default({}) }),
    async (params, { supervisor }) => {
      const { surroundings } = supervisor;
      const plan = resolveLogin(
        {
          // A discovery session has no target; the name only has to be one.
          targetName: 'iqn.2001-04.com.example:any',
          portal: params.TargetPortal,
          sessionType: 'informational',
          persistent: false,
          options: params.LoginOptions,
        },
        surroundings,
      );
      const sessionOptions = await sessionOptionsOf(plan, surroundings);
      const signal = AbortSignal.timeout(sessionOptions.loginTimeoutSeconds * 2000);
      const warnings: string[] = [];
      const warn = (message: string) => warnings.push(message);
      const targets = await discover(params.TargetPortal, sessionOptions, signal, warn);
      return { targets, warnings };
    },
  ),
  LoginToTarget: method(loginParams, async (params, subject) => {
    const { session, existed } = await subject.supervisor.login(loginRequest(params));
    return {
      UniqueSessionId: session.sessionId,
      existed,
      session: viewSession(session, subject.nowMs()),
    };
  }),
  LogoutFromTarget: method(
    z.strictObject({ UniqueSessionId: sessionId, force: z.boolean().default(false) }),
    async (params, { supervisor }) => {
      await supervisor.logout(params.UniqueSessionId, { force: params.force });
      return {};
    },
  ),
  AddConnectionToSession: method(z.looseObject({}), async () => oneConnection()),
  RemoveConnectionFromSession: method(z.looseObject({}), async () => oneConnection()),
  AddPersistentLogin: method(
    loginParams.extend({ DryRun: z.boolean().default(false) }),
    async (params, { supervisor }) => {
      const dryRun = params.DryRun;
      return viewRecord(await supervisor.addPersistentLogin(loginRequest(params), dryRun), null);
    },
  ),
  PersistentLogins: method(noParams, async (_params, { supervisor }) => {
    const records = await supervisor.persistentLogins();
    const stateOf = (record: SessionRecord) =>
      supervisor.sessions.find((session) => session.sessionId === record.sessionId)?.state ?? null;
    return { logins: records.map((record) => viewRecord(record, stateOf(record))) };
  }),
  RemovePersistentLogin: method(
    z.strictObject({ UniqueSessionId: sessionId }),
    async (params, { supervisor }) => {
      const id = params.UniqueSessionId;
      const removed = await supervisor.removePersistentLogin((record) => record.sessionId === id);
      if (removed > 0) return { removed };
      throw new UsageError(`No persistent login has the session ${id}.`, {
        exitCode: EXIT_CODES.nothingFound.code,
        code: 'ERR_NO_PERSISTENT_LOGIN',
      });
    },
  ),
  ScsiInquiry: method(
    z.strictObject({
      UniqueSessionId: sessionId,
      Lun: lun,
      /** 1: a VPD page (EVPD). */
      InquiryFlags: z.literal([0, 1]).default(0),
      PageCode: z.number().int().min(0).max(255).default(0),
    }),
    async (params, { supervisor }) => {
      const page = params.InquiryFlags === 1 ? params.PageCode : null;
      return answer(await queryInquiry(questionsTo(supervisor, params), params.Lun, page));
    },
  ),
  ScsiReadCapacity: method(
    z.strictObject({ UniqueSessionId: sessionId, Lun: lun }),
    async (params, { supervisor }) =>
      answer(await queryCapacity(questionsTo(supervisor, params), params.Lun)),
  ),
  ScsiReportLuns: method(sessionOnly, async (params, { supervisor }) =>
    answer(await queryReportLuns(questionsTo(supervisor, params))),
  ),
  InitiatorSessionInfo: method(
    z.strictObject({ UniqueSessionId: sessionId.optional() }),
    async (params, subject) => ({
      sessions: chosen(subject, params.UniqueSessionId).map((session) =>
        viewSession(session, subject.nowMs()),
      ),
    }),
  ),
  SessionStatistics: method(
    z.strictObject({ UniqueSessionId: sessionId.optional() }),
    async (params, subject) => ({
      statistics: chosen(subject, params.UniqueSessionId).map((session) =>
        viewStatistics(session, subject.nowMs()),
      ),
    }),
  ),
  Devices: method(noParams, async (_params, { supervisor, nowMs }) => ({
    devices: supervisor.sessions.flatMap((session) => viewDevices(session, nowMs())),
  })),
  Rescan: method(
    z.strictObject({ UniqueSessionId: sessionId.optional() }),
    async (params, subject) => {
      const rescans = chosen(subject, params.UniqueSessionId).map(async (session) => ({
        UniqueSessionId: session.sessionId,
        ...(await outcomeOf(session.rescan())),
      }));
      return { sessions: await Promise.all(rescans) };
    },
  ),
  SetSessionOption: method(
    z.strictObject({ UniqueSessionId: sessionId, option: z.string().max(64), value: z.unknown() }),
    async ({ UniqueSessionId, option, value }, { supervisor }) => {
      const path = pathOf(supervisor.sessions, UniqueSessionId);
      const session = path?.session ?? supervisor.session(UniqueSessionId);
      return setSessionOption(session, option, value, path?.member);
    },
  ),
  SubscribeEvents: method(noParams, async (_params, { supervisor }, client) => {
    subscribe(client, (listener) => supervisor.listen(listener));
    return {};
  }),
};

export const METHOD_NAMES = Object.keys(METHODS);

/** What each method takes; docs/CONTROL-API.md is made of it. */
export const METHOD_PARAMS: Readonly<Record<string, z.ZodType>> = Object.fromEntries(
  Object.entries(METHODS).map(([name, { params }]) => [name, params]),
);

/** The function a control server calls for every request. */
export function controlMethods(subject: ControlSubject): CallMethod {
  const methods = new Map<string, Method<unknown>>(Object.entries(METHODS));
  return async (request, client) => {
    const found = methods.get(request.method);
    if (found === undefined) {
      const near = closestMatch(request.method, METHOD_NAMES);
      const hint = near === undefined ? '' : `; did you mean ${near}?`;
      const message = `there is no method ${JSON.stringify(request.method)}${hint}`;
      throw new RpcFaultError({ code: RpcCode.methodNotFound, message });
    }
    const params = found.params.safeParse(request.params);
    if (!params.success) {
      const message = `${request.method}: ${faultText(params.error)}`;
      throw new RpcFaultError({ code: RpcCode.invalidParams, message });
    }
    return found.run(params.data, subject, client);
  };
}

/** The login that the parameters of a method wish for; throws if they are wrong. */
export function loginOf(params: Readonly<Record<string, unknown>>): LoginParams {
  const { DryRun: _dryRun, ...login } = params;
  return loginRequest(loginParams.parse(login));
}

/** A client hears every event from now on, once, however often it asks. */
export function subscribe(
  client: ControlClient,
  listen: (listener: (event: ProductEvent) => void) => () => void,
): void {
  if (subscribers.has(client)) return;
  subscribers.add(client);
  client.onGone(listen((event) => client.notify('event', event)));
}

function method<Params>(
  params: z.ZodType<Params>,
  run: (params: Params, subject: ControlSubject, client: ControlClient) => Promise<unknown>,
): Method<unknown> {
  // The table is read with params that its own schema has made.
  return { params, run: (value, ...rest) => run(value as Params, ...rest) };
}

function loginRequest(params: z.output<typeof loginParams>): LoginParams {
  for (const [name, what] of Object.entries(UNSUPPORTED_PARAMS)) {
    const value = params[name as keyof typeof UNSUPPORTED_PARAMS];
    if (value === undefined || value === null || value === 0 || value === '') continue;
    throw notSupported(`${name} is not supported (${what}).`);
  }
  return {
    targetName: params.TargetName,
    portal: params.TargetPortal,
    sessionType: params.SessionType,
    persistent: params.PersistentLogin,
    options: {
      ...params.LoginOptions,
      ...(params.InitiatorNode === undefined ? {} : { initiatorName: params.InitiatorNode }),
      ...(params.Username === undefined ? {} : { chapUser: params.Username }),
    },
  };
}

function chosen({ supervisor }: ControlSubject, id: string | undefined): readonly DaemonSession[] {
  return id === undefined ? supervisor.sessions : [supervisor.session(id)];
}

/** One session that cannot be asked now must not hide what the others said. */
async function outcomeOf(
  rescan: Promise<readonly number[]>,
): Promise<{ readonly added: readonly number[]; readonly error: string | null }> {
  try {
    return { added: await rescan, error: null };
  } catch (error) {
    return { added: [], error: productError(error).message };
  }
}

/** The session as one that is asked questions; it is not the asker's to close. */
function questionsTo(supervisor: Supervisor, params: { readonly UniqueSessionId: string }) {
  const { handle } = supervisor.session(params.UniqueSessionId).stack;
  return {
    sessionId: handle.sessionId,
    lunFields: handle.lunFields,
    execute: handle.execute.bind(handle),
    ping: handle.ping.bind(handle),
    close: async () => {},
  };
}

function answer(found: { readonly raw: Buffer; readonly view: unknown }): unknown {
  return { ScsiStatus: 0, ResponseBuffer: found.raw.toString('hex'), view: found.view };
}

function viewRecord(record: SessionRecord, state: string | null): unknown {
  const { sessionId: id, initiatorName, targetName, portal: place, sessionType: type } = record;
  return {
    UniqueSessionId: id,
    InitiatorNode: initiatorName,
    TargetName: targetName,
    TargetPortal: place,
    SessionType: type,
    LoginOptions: record.options,
    state,
  };
}

function oneConnection(): never {
  throw notSupported('A session has one connection in this version; that is not supported.');
}

function notSupported(message: string): UsageError {
  const { code: exitCode } = EXIT_CODES.notSupported;
  return new UsageError(message, { exitCode, code: 'ERR_NOT_SUPPORTED' });
}
