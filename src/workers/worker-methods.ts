import type { CallMethod } from '../control/control-connection.js';
import { RpcFaultError } from '../control/control-connection.js';
import { loginOf, METHOD_PARAMS, subscribe } from '../control/control-methods.js';
import { PROTOCOL_VERSION, type RpcRequest } from '../control/control-protocol.js';
import type { StatisticsView } from '../supervisor/session-report.js';
import { RefusedError } from './worker-channel.js';
import type { WorkerPool } from './worker-pool.js';

/**
 * Who answers each method of the control socket: the main thread, the worker that has the session,
 * all of them, the one that has the login or is to have it, or any. A method without the session
 * that it may be given is for all.
 */
export const METHOD_ROUTES: Readonly<
  Record<string, 'main' | 'session' | 'all' | 'login' | 'record' | 'any'>
> = {
  Version: 'main',
  SubscribeEvents: 'main',
  SendTargets: 'any',
  LoginToTarget: 'login',
  LogoutFromTarget: 'session',
  AddConnectionToSession: 'any',
  RemoveConnectionFromSession: 'any',
  AddPersistentLogin: 'login',
  PersistentLogins: 'all',
  RemovePersistentLogin: 'record',
  ScsiInquiry: 'session',
  ScsiReadCapacity: 'session',
  ScsiReportLuns: 'session',
  InitiatorSessionInfo: 'session',
  SessionStatistics: 'session',
  Devices: 'all',
  Rescan: 'session',
  SetSessionOption: 'session',
};

/** Methods that report all sessions if the call names none. */
const OF_ALL = ['InitiatorSessionInfo', 'SessionStatistics', 'Rescan'];

type Rows = Readonly<Record<string, readonly Readonly<Record<string, unknown>>[]>>;

/** The function a control server calls for every request, of a daemon with workers. */
export function workerMethods(pool: WorkerPool): CallMethod {
  return async (request, client) => {
    const { method } = request;
    if (METHOD_PARAMS[method]?.safeParse(request.params).success === true) {
      if (method === 'Version') return { protocolVersion: PROTOCOL_VERSION, version: pool.version };
      if (method === 'SubscribeEvents') {
        subscribe(client, (listener) => pool.listen(listener));
        return {};
      }
    }
    try {
      return await routed(pool, request);
    } catch (error) {
      if (error instanceof RefusedError && 'fault' in error.refusal) {
        throw new RpcFaultError(error.refusal.fault);
      }
      throw error;
    }
  };
}

/** What all sessions of all workers say, for the metrics. */
export async function allStatistics(pool: WorkerPool): Promise<readonly StatisticsView[]> {
  const request = { method: 'SessionStatistics', params: {} };
  const { statistics = [] } = (await routed(pool, request)) as Record<string, StatisticsView[]>;
  return statistics;
}

/** LUNs that can be used, as `<target>/<lun>`. */
export async function usableLuns(pool: WorkerPool): Promise<ReadonlySet<string>> {
  const { devices = [] } = (await routed(pool, { method: 'Devices', params: {} })) as Rows;
  const usable = devices.filter(({ device, socket }) => device !== null || socket !== null);
  return new Set(usable.map(({ TargetiSCSIName, lun }) => `${TargetiSCSIName}/${lun}`));
}

/** Parameters that are wrong go to any worker, which says what is wrong with them. */
async function routed(pool: WorkerPool, request: RpcRequest): Promise<unknown> {
  const { method, params } = request;
  const call = { type: 'call', request } as const;
  const isRight = METHOD_PARAMS[method]?.safeParse(params).success === true;
  const route = isRight ? METHOD_ROUTES[method] : 'any';
  const id = params['UniqueSessionId'];
  if (route === 'all' || (OF_ALL.includes(method) && isRight && id === undefined)) {
    return merged(pool, method, await pool.askAll(call));
  }
  if (route === 'login') {
    const { result, worker } = await pool.askHome(pool.keyOf(loginOf(params)), call);
    return withWorkerOfLogin(result, worker);
  }
  if (route === 'record') return removeRecord(pool, request);
  const owner = route === 'session' ? await pool.ownerOf(String(id)) : null;
  const worker = owner ?? pool.leastLoaded();
  const result = await worker.ask(call);
  return OF_ALL.includes(method) ? withWorker(pool, method, result, worker.index) : result;
}

/** The record of a session is its worker's; one without a session may be removed by any. */
async function removeRecord(pool: WorkerPool, request: RpcRequest): Promise<unknown> {
  const id = request.params['UniqueSessionId'];
  const record = (await pool.persistentLogins()).find(({ sessionId }) => sessionId === id);
  const call = { type: 'call', request } as const;
  if (record === undefined) return pool.leastLoaded().ask(call);
  return (await pool.askHome(pool.keyOfRecord(record), call)).result;
}

function merged(
  pool: WorkerPool,
  method: string,
  answers: readonly { readonly worker: number; readonly result: unknown }[],
): unknown {
  const all: Record<string, Record<string, unknown>[]> = {};
  for (const { worker, result } of answers) {
    const rows = withWorker(pool, method, result, worker) as Rows;
    for (const [name, list] of Object.entries(rows)) all[name] = [...(all[name] ?? []), ...list];
  }
  if (method === 'PersistentLogins') return { logins: eachOnce(all['logins'] ?? []) };
  return all;
}

/** Every worker lists all records, and each knows the states of its own sessions. */
function eachOnce(logins: readonly Record<string, unknown>[]): unknown[] {
  const byId = new Map<unknown, Record<string, unknown>>();
  for (const login of logins) {
    const id = login['UniqueSessionId'];
    if ((byId.get(id)?.['state'] ?? null) === null) byId.set(id, login);
  }
  return [...byId.values()];
}

function withWorker(pool: WorkerPool, method: string, result: unknown, worker: number): unknown {
  const more: Readonly<Record<string, object>> = {
    InitiatorSessionInfo: { worker },
    SessionStatistics: { worker, workerLoad: Math.round(pool.loadOf(worker) * 100) / 100 },
  };
  const fields = more[method];
  if (fields === undefined) return result;
  const rows = Object.entries(result as Rows).map(([name, list]) => {
    return [name, list.map((row) => ({ ...row, ...fields }))] as const;
  });
  return Object.fromEntries(rows);
}

/** The answer of a login has a view of the session; that of a persistent login has none. */
function withWorkerOfLogin(result: unknown, worker: number): unknown {
  const answer = result as Readonly<Record<string, unknown>>;
  const { session } = answer;
  if (typeof session !== 'object') return result;
  return { ...answer, session: { ...session, worker } };
}
