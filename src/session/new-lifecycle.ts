import type { SerialQueue } from '../base/serial-queue.js';
import { LogicalUnit } from '../bridge/logical-unit.js';
import type { EventBody } from '../config/contract.js';
import type { LunExporter } from '../lun/lun-exporter.js';
import { LunLifecycle } from '../lun/lun-lifecycle.js';
import type { LunLifecycles } from '../lun/lun-lifecycles.js';
import type { Runtime, SessionResources } from '../lun/runtime.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { BlockSessionOptions } from './block-session-options.js';
import { type SessionPaths, unitHooks } from './paths/session-paths.js';
import type { QueueDepthDriver } from './queue-depth-driver.js';
import { retainOptions } from './retain-options.js';
import type { SessionClient } from './session-client.js';
import { transfersCutText } from './warning-text.js';

/** What a block session has that its disks need. */
type LifecycleSession = {
  readonly runtime: Runtime;
  readonly resources: SessionResources;
  readonly setup: BlockSessionOptions;
  readonly handle: SessionClient;
  readonly luns: LunLifecycles;
  readonly paths: SessionPaths;
  readonly depth: QueueDepthDriver;
  readonly turns: SerialQueue;
  readonly exporter: LunExporter;
  readonly openExporter: () => Promise<void>;
  readonly emit: (body: EventBody) => void;
  readonly place: (unit: LogicalUnit) => { lun: number; device?: string };
};

/** A disk that was found at a LUN, with what moves it through the states of a LUN. */
export function newLifecycle(
  lun: number,
  facts: DiskFacts,
  session: LifecycleSession,
): LunLifecycle {
  const { handle, setup, depth, paths, emit, place, runtime } = session;
  const { pool, clock } = runtime;
  const hooks = unitHooks(() => lifecycle);
  const unit: LogicalUnit = new LogicalUnit({
    lun,
    field: handle.lunFields.fieldOf(lun),
    facts,
    forcedReadOnly: setup.options.readOnly,
    port: paths.isSpread ? paths.portOf(lun, hooks) : handle.initiator,
    pool,
    clock,
    budget: session.resources.budget,
    onAttention: (_unit, attention, sinceMs) => {
      session.luns.unitAttention(lifecycle, attention, sinceMs);
      if (attention === 'lunsChanged' || attention === 'lunGone') setup.onLunsChanged?.();
    },
    onCongested: () => depth.congested(),
    onTransfersCut: (...bytes) =>
      emit({ event: 'warning', message: transfersCutText(lun, ...bytes) }),
    onLossChanged: (_unit, isUntold) => setup.losses?.changed(lun, isUntold),
    onFirstWrite: () => setup.onFirstWrite?.(lun),
    retain: retainOptions(lun, setup, runtime.retainedShare),
    onIoError: (error) => emit({ event: 'ioError', ...error, ...place(unit) }),
  });
  const lifecycle: LunLifecycle = new LunLifecycle({
    unit,
    execute: (request, onSent) => paths.send(request, onSent),
    clock,
    turns: session.turns,
    allowUnidentified: setup.options.allowUnidentified === true,
    timers: handle.removalTimers,
    probeIntervalMs: () => handle.session.timers.reconnectIntervalMs,
    exporter: () => session.exporter,
    factsRead: () => depth.limitDisk(unit.disk),
    openExporter: session.openExporter,
    emit: (news) => emit(news.event === 'warning' ? news : { ...news, ...place(unit) }),
    onRemoved: () => handle.lunRemoved(),
  });
  depth.limitDisk(unit.disk);
  return lifecycle;
}
