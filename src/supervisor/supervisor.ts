import { setTimeout as sleep } from 'node:timers/promises';
import { productError, UsageError } from '../base/errors.js';
import { Semaphore } from '../base/semaphore.js';
import type { ProductEvent } from '../config/contract.js';
import { currentBootId } from '../io/boot-id.js';
import { DeviceExporter } from '../lun/device-exporter.js';
import { threadRuntime } from '../lun/runtime.js';
import { SessionRetained } from '../lun/session-retained.js';
import { DaemonSession, type SessionEnd } from './daemon-session.js';
import { loginPath, logoutPath, pathOf } from './one-path.js';
import {
  begunRecord,
  identityOf,
  isHandedOver,
  leftBehind,
  stillLeft,
  subjectOf,
  withoutDisks,
} from './record-identity.js';
import {
  type DaemonEnvironment,
  type LoginParams,
  type ResolvedLogin,
  requireSameOptions,
  resolveLogin,
  sessionOptionsOf,
} from './resolved-login.js';
import { noSession, sessionLeft } from './session-errors.js';
import { waitingDisks } from './session-exports.js';
import { keyText, type SessionRecord } from './session-record.js';
import { type BrokenRecord, SessionRecords } from './session-records.js';
import { WINDOW_MS } from './session-statistics.js';
import { type Entry, SessionTable } from './session-table.js';
import { SharedUnits } from './shared-units.js';
import type { SupervisorOptions } from './supervisor-options.js';

/** Sessions of one daemon; each may hold memory for an outage. */
const SESSIONS_MAX = 1024;
/** The session is no longer wanted here. */
const IS_OVER = ['ERR_LOGGED_OUT', 'ERR_OTHER_THREAD'];

type Beginning = {
  /** What is written down of the session before this one. */
  readonly known: SessionRecord | null;
  readonly persistent: boolean;
  readonly firstLogin: 'once' | 'forever';
};

/** All sessions of a daemon: at most one for each initiator, target and type. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #records: SessionRecords;
  readonly #entries: SessionTable;
  readonly #slots: Semaphore;
  readonly #units: SharedUnits;
  readonly #listeners = new Set<(event: ProductEvent) => void>();
  readonly #ending = new AbortController();
  readonly #windows: NodeJS.Timeout;

  private constructor(options: SupervisorOptions) {
    this.#windows = setInterval(() => this.#windowPassed(), WINDOW_MS).unref();
    this.#options = options;
    this.#records = new SessionRecords(options.surroundings.stateDirectory);
    this.#slots = new Semaphore(options.loginsMax);
    this.#entries = new SessionTable(options.neighbours);
    this.#units = new SharedUnits(() => this.#readySessions(), options.neighbours);
  }

  /** The caller owns the state directory. */
  static async make(options: Omit<SupervisorOptions, 'bootId'>): Promise<Supervisor> {
    return new Supervisor({ ...options, bootId: await currentBootId() });
  }

  get surroundings(): DaemonEnvironment {
    return this.#options.surroundings;
  }

  get sessions(): readonly DaemonSession[] {
    const sessions = [...this.#entries.values()].map((entry) => entry.session);
    return sessions.filter((session) => session !== null);
  }

  /** Throws UsageError 2. */
  session(sessionId: string): DaemonSession {
    const found = this.sessions.find((session) => session.sessionId === sessionId);
    if (found !== undefined) return found;
    throw noSession(sessionId);
  }

  /** Hears every event from now on; the returned function ends that. */
  listen(listener: (event: ProductEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Logs in, or finds the session that is as it is wished; logins of one session that come together
   * are one. Rejects with the login's errors, or UsageError 15, 27 and so on.
   */
  async login(
    request: LoginParams,
  ): Promise<{ readonly session: DaemonSession; readonly existed: boolean }> {
    const plan = resolveLogin(request, this.surroundings);
    const key = keyText(subjectOf(plan));
    const entry = this.#entries.get(key);
    if (entry !== undefined) return this.#join(entry, plan);
    const known = await this.#records.find(subjectOf(plan), (broken) => this.#tellBroken(broken));
    // Between the question and here another login of the same may have come.
    if (this.#entries.has(key)) return this.login(request);
    // A session that is not restored yet, or could not be, is taken over as by `restore`.
    const persistent = request.persistent || known?.persistent === true;
    const begun = this.#begin(plan, { known, persistent, firstLogin: 'once' });
    const session = await begun.ready;
    await session.open();
    return { session, existed: false };
  }

  /**
   * Logs a session out, or one of its paths. Throws UsageError 2 without it; without `force` 28
   * while a device of it is in use, and for the boot session.
   */
  async logout(sessionId: string, options: { readonly force: boolean }): Promise<void> {
    const path = pathOf(this.sessions, sessionId);
    if (path !== null) return logoutPath(path, options);
    const session = this.session(sessionId);
    if (!options.force) session.refuseEndOfBoot();
    if (session.isLeft) throw sessionLeft(sessionId);
    const entry = [...this.#entries.values()].find((other) => other.session === session);
    await this.#units.logout(session, options);
    await entry?.done;
  }

  /**
   * Logs in again what is to be there: persistent logins, and all that a crash interrupted; of
   * these `keys` only, where they are given.
   */
  async restore(keys?: ReadonlySet<string>): Promise<void> {
    const { bootId } = this.#options;
    const { records, broken } = await this.#records.load();
    for (const record of broken) this.#tellBroken(record);
    for (const record of records) {
      // Another caller was quicker, and logged it in by this record.
      if (this.#entries.has(keyText(record)) || keys?.has(keyText(record)) === false) continue;
      const isLeft = leftBehind(record, bootId) !== null;
      if (record.persistent || isLeft) this.#restoreOne(record);
      // What a logout has left at its target may still be at work there.
      else if (record.bootId !== bootId) await this.#records.remove(record);
    }
  }

  /** Records that outlive the daemon, logged in or not. */
  async persistentLogins(): Promise<readonly SessionRecord[]> {
    const { records } = await this.#records.load();
    return records.filter((record) => record.persistent);
  }

  /** Keeps a login for the next starts; `dryRun` only judges it. Throws UsageError. */
  async addPersistentLogin(request: LoginParams, dryRun = false): Promise<SessionRecord> {
    const plan = resolveLogin(request, this.surroundings);
    const session = await this.#entries.get(keyText(subjectOf(plan)))?.ready;
    if (session !== undefined) {
      requireSameOptions(session.plan, plan, session.sessionId);
      if (!dryRun) await loginPath(session, plan);
      if (!dryRun) await this.#save(session, { persistent: true });
      return session.record;
    }
    const record = { ...this.#recordOf(plan, null, true), active: false };
    if (!dryRun) await this.#records.save(record);
    return record;
  }

  /** Forgets persistent logins; sessions stay until logout. Resolves to how many there were. */
  async removePersistentLogin(is: (record: SessionRecord) => boolean): Promise<number> {
    const found = (await this.persistentLogins()).filter(is);
    for (const record of found) {
      const session = this.#entries.get(keyText(record))?.session;
      if (session) await this.#save(session, { persistent: false });
      else await this.#records.remove(record);
    }
    return found.length;
  }

  /**
   * Logs everything out, to end the process. A device in use, one whose target is away, and that of
   * a boot session are left as they are to the daemon that comes next: their requests wait
   * meanwhile.
   */
  async close(): Promise<void> {
    this.#ending.abort();
    clearInterval(this.#windows);
    const closing = [...this.#entries.values()].map((entry) => this.#closeOne(entry));
    // One that cannot be left in order does not keep the others from it.
    for (const end of await Promise.allSettled(closing)) {
      if (end.status === 'rejected') throw end.reason;
    }
  }

  async #readySessions(): Promise<readonly DaemonSession[]> {
    const all = await Promise.allSettled([...this.#entries.values()].map(({ ready }) => ready));
    return all.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  }

  #windowPassed(): void {
    const nowMs = threadRuntime().clock.nowMs();
    for (const session of this.sessions) session.statistics.windowPassed(nowMs);
  }

  async #closeOne(entry: Entry): Promise<void> {
    try {
      const session = await entry.ready;
      // Most of it is written while the users go on, so that the end takes little time.
      const unflushed = session.hasOpened ? await session.flush() : [];
      if (session.isBoot) return await session.leave();
      const hasDevices = session.exports.some(({ device }) => device !== undefined);
      const isAway = hasDevices && (unflushed.length > 0 || (await session.isAway()));
      if (isAway) throw new UsageError('its target, or a disk of it, is away');
      await session.close({ force: false });
      await entry.done;
    } catch (error) {
      const failure = productError(error);
      const facts = { sessionId: entry.session?.sessionId, reason: failure.message };
      this.#options.log.warn(facts, 'its devices are left to the next daemon');
      await entry.session?.leave();
    }
  }

  /** A login of a session that is there or on its way. */
  async #join(
    entry: Entry,
    plan: ResolvedLogin,
  ): Promise<{ readonly session: DaemonSession; readonly existed: boolean }> {
    const session = await entry.ready;
    if (session.isEnding) {
      await entry.done;
      return this.login(plan.request);
    }
    requireSameOptions(session.plan, plan, session.sessionId);
    if (plan.request.persistent) await this.#save(session, { persistent: true });
    await session.opened();
    await loginPath(session, plan);
    return { session, existed: true };
  }

  #restoreOne(record: SessionRecord): void {
    const { log } = this.#options;
    const kept = this.#entries.hold(keyText(record), () => this.#keepTrying(record));
    kept.catch((error: unknown) => {
      const { message } = productError(error);
      log.error({ target: record.targetName, reason: message }, 'a login is not restored');
    });
  }

  /** Logs in until it works, the record is gone, or a client logs out. */
  async #keepTrying(record: SessionRecord): Promise<void> {
    const { initiatorName } = record;
    // The name may come from elsewhere by now; the session is that of the old one.
    const request = { ...record, options: { ...record.options, initiatorName } };
    for (;;) {
      const plan = resolveLogin(request, this.surroundings);
      const { reconnectIntervalSeconds } = plan.config.values;
      const entry = this.#begin(plan, {
        known: record,
        persistent: record.persistent,
        firstLogin: 'forever',
      });
      const session = await entry.ready;
      const error = await this.#slots.use((release) => {
        // One that waits for its target must not keep the others from theirs.
        const unlisten = session.stack.handle.listen((effect) => {
          if (effect.type === 'attemptFailed') release();
        });
        return session
          .open()
          .then(() => null, productError)
          .finally(unlisten);
      });
      if (error === null || IS_OVER.includes(error.code)) return;
      const facts = { target: record.targetName, reason: error.message };
      this.#options.log.warn(facts, 'logged in, but not usable; it is tried again');
      const { signal } = this.#ending;
      await sleep(reconnectIntervalSeconds * 1000, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      await entry.done;
      const isWanted = (await this.#records.find(record)) !== null;
      if (!isWanted || this.#entries.has(keyText(record))) return;
    }
  }

  /** A session that was there broke off, for example because its device was disconnected. */
  #openFailed(session: DaemonSession): void {
    const { record, sessionId } = session;
    this.#options.log.error({ sessionId, target: record.targetName }, 'the session broke off');
    if (record.persistent && !this.#ending.signal.aborted) this.#restoreOne(withoutDisks(record));
  }

  #begin(plan: ResolvedLogin, how: Beginning): Entry {
    if (this.#ending.signal.aborted) throw new UsageError('The daemon is ending.', { exitCode: 1 });
    if (this.#entries.size >= SESSIONS_MAX) {
      throw new UsageError(`There are ${SESSIONS_MAX} sessions, as many as there may be.`);
    }
    const key = keyText(subjectOf(plan));
    const ready = this.#prepare(plan, how);
    const done = ready.then(
      async (session) => {
        entry.session = session;
        session.stack.closed.catch(() => session.breakOff());
        const end = await session.ended;
        await this.#ended(session, end, how).finally(() => this.#entries.delete(key));
        if (end === 'failed' && session.hasOpened) this.#openFailed(session);
      },
      () => {
        this.#entries.delete(key);
      },
    );
    done.catch((error: unknown) => {
      this.#options.log.error({ reason: productError(error).message }, 'a record is out of date');
    });
    const entry: Entry = { session: null, ready, done };
    this.#entries.set(key, entry);
    return entry;
  }

  async #prepare(plan: ResolvedLogin, how: Beginning): Promise<DaemonSession> {
    const { surroundings, exportPlan } = this.#options;
    const options = await sessionOptionsOf(plan, surroundings);
    const isInformational = plan.request.sessionType === 'informational';
    if (exportPlan.kind === 'devices' && !isInformational) await DeviceExporter.requireSupport();
    const { known, persistent, firstLogin } = how;
    const left = this.#leftOf(how);
    const record = this.#recordOf(plan, known, persistent);
    const saveRecord = (changed: SessionRecord) =>
      this.#records.saveOrKeep(changed, (message) => this.#options.log.warn(message));
    await saveRecord(record);
    const { retained } = this.#options;
    const subject = { sessionId: record.sessionId, isDevice: exportPlan.kind === 'devices' };
    const session: DaemonSession = new DaemonSession({
      plan,
      options,
      identity: identityOf(record),
      record,
      exportPlan,
      firstLogin,
      waiting: await waitingDisks(exportPlan, record.sessionId, record.disks),
      isLeft: left !== null,
      isClean: (lun) => left !== null && isHandedOver(left, lun),
      mayHaveGhosts: known?.bootId === this.#options.bootId,
      losses: this.#records.lossesOf(record, (message) => this.#options.log.error(message)),
      retained: retained && (await SessionRetained.make(retained, subject)),
      ownDisks: (found) => this.#units.ownDisks(session, found),
      onEvent: (event) => this.#publish(event),
      saveRecord,
    });
    return session;
  }

  /** What stays of a session on disk. After a logout the next one has another identity. */
  async #ended(session: DaemonSession, end: SessionEnd, how: Beginning): Promise<void> {
    const { record, hasGhosts } = session;
    const isEnding = this.#ending.signal.aborted;
    const keepsIdentity = isEnding || end === 'failed';
    const left = session.hasOpened || session.hasMetAnotherDisk ? null : this.#leftOf(how);
    const isStillLeft = keepsIdentity && left !== null;
    const isAway = isEnding && record.persistent && session.hasOpened && hasGhosts;
    if (!isAway) session.retained?.end({ isOver: end === 'loggedOut' && !isStillLeft });
    if (end === 'failed' && how.firstLogin === 'forever') return;
    // No client has used it here: the next daemon takes over from the one that left it.
    if (isStillLeft) return this.#records.save(stillLeft(record, left));
    // Its target was away at the end: what its clients have not flushed is the next daemon's.
    if (isAway) return this.#records.save(record);
    if (end === 'loggedOut') session.losses.remove();
    if (record.persistent && keepsIdentity) await this.#records.save(withoutDisks(record));
    else await this.#records.loggedOut(record, { hasGhosts });
  }

  #leftOf({ known }: Beginning): SessionRecord | null {
    return leftBehind(known, this.#options.bootId);
  }

  async #save(session: DaemonSession, change: { readonly persistent: boolean }): Promise<void> {
    session.record = { ...session.record, ...change };
    await this.#records.save(session.record);
  }

  #recordOf(plan: ResolvedLogin, known: SessionRecord | null, persistent: boolean): SessionRecord {
    const { options } = plan.request;
    return begunRecord(subjectOf(plan), known, {
      bootId: this.#options.bootId,
      persistent,
      options,
    });
  }

  #tellBroken(broken: BrokenRecord): void {
    this.#options.log.error(broken, 'a login record is broken and was set aside');
  }

  #publish(event: ProductEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
