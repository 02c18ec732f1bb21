import { Gauge, type Registry } from 'prom-client';
import type { WorkerView } from '../workers/worker-pool.js';

/** What each worker does and takes. The returned function takes over a reading. */
export function workerMetrics(registry: Registry): (views: readonly WorkerView[]) => void {
  const gauge = (name: string, help: string) => {
    const settings = { name: `iscsi_nbd_worker_${name}`, help, labelNames: ['worker'] as const };
    return new Gauge({ ...settings, registers: [registry] });
  };
  const load = gauge('load', 'Part of a processor that the worker uses, over 5 to 10 seconds');
  const sessions = gauge('sessions', 'Sessions of the worker');
  const restarts = gauge('restarts', 'Number of times that the worker ended and was replaced');
  const heap = gauge('heap_bytes', 'Heap of the worker');
  const external = gauge('external_bytes', 'Memory of the worker beside its heap, such as slabs');
  const all = [load, sessions, restarts, heap, external];
  return (views) => {
    for (const each of all) each.reset();
    for (const view of views) {
      const labels = { worker: String(view.worker) };
      load.set(labels, view.load);
      sessions.set(labels, view.sessions);
      restarts.set(labels, view.restarts);
      if (view.usage === null) continue;
      heap.set(labels, view.usage.heapBytes);
      external.set(labels, view.usage.externalBytes);
    }
  };
}
