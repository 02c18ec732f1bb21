import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { metricsRegistry } from '../../src/daemon/metrics.js';

const FOLDER = new URL('../../packaging/monitoring/', import.meta.url);
const text = (name: string) => readFileSync(new URL(name, FOLDER), 'utf8');

/** Metrics with the labels of each, as the daemon exports them. */
const EXPORTED = new Map(
  metricsRegistry()
    .registry.getMetricsAsArray()
    .map((metric) => [metric.name, labelsOf(metric)]),
);

function labelsOf(metric: object): readonly unknown[] {
  return 'labelNames' in metric && Array.isArray(metric.labelNames) ? metric.labelNames : [];
}

/** The expressions of the rules, or of the dashboard and its variables. */
function expressions(name: string): string[] {
  if (!name.endsWith('.json')) {
    const rules = text(name).matchAll(/^ +expr: (?:>-\n((?: {10}.*\n)+)|(.*)$)/gm);
    return [...rules].map(([, folded, line]) => folded ?? line ?? '');
  }
  const found: string[] = [];
  JSON.parse(text(name), (key, value: unknown) => {
    if ((key === 'expr' || key === 'query') && typeof value === 'string') found.push(value);
    return value;
  });
  return found;
}

/** What an expression asks for that the daemon does not export. */
function unknownNames(expression: string): string[] {
  return [...expression.matchAll(/\b(iscsi_nbd_\w+)(?:\{([^}]*)\})?/g)].flatMap((match) => {
    const [, metric = '', selector = ''] = match;
    const labels = EXPORTED.get(metric);
    if (labels === undefined) return [metric];
    const selected = [...selector.matchAll(/(\w+)(?:=|!)/g)].map(([, label = '']) => label);
    return selected.filter((label) => !labels.includes(label)).map((label) => `${metric}.${label}`);
  });
}

describe('packaging/monitoring', () => {
  it.each([
    ['iscsi-nbd.rules.yaml', 9],
    ['grafana-dashboard.json', 20],
  ])('%s asks for metrics and labels that the daemon exports', (name, count) => {
    const found = expressions(name);
    expect(found.length).toBeGreaterThanOrEqual(count);
    expect(found.flatMap(unknownNames)).toEqual([]);
  });

  it('another metric and another label are found', () => {
    expect(unknownNames('rate(iscsi_nbd_lun_speed[5m])')).toEqual(['iscsi_nbd_lun_speed']);
    expect(unknownNames('iscsi_nbd_session_up{lun="1"}')).toEqual(['iscsi_nbd_session_up.lun']);
  });

  it('the dashboard shows sessions, states of LUNs, removal, latency, held and retained bytes, paths', () => {
    const all = expressions('grafana-dashboard.json').join('\n');
    for (const metric of ['session_up', 'lun_state', 'lun_removal_seconds', 'latency_p99_seconds'])
      expect(all).toContain(metric);
    for (const metric of ['session_held_bytes', 'lun_retained_bytes', 'path_up'])
      expect(all).toContain(metric);
  });

  const promtool = promtoolPath();
  it.skipIf(promtool === null)('promtool accepts the rules, and their tests pass', () => {
    const run = (...words: string[]) =>
      execFileSync(promtool ?? '', words, { cwd: fileURLToPath(FOLDER), encoding: 'utf8' });
    expect(run('check', 'rules', 'iscsi-nbd.rules.yaml')).toContain('SUCCESS: 9 rules found');
    expect(run('test', 'rules', 'iscsi-nbd.rules.test.yaml')).toContain('SUCCESS');
  });
});

/** Null where scripts/test-parts/promtool has not brought it: `scripts/setup --test` does. */
function promtoolPath(): string | null {
  const own = fileURLToPath(new URL('../../.cache/promtool/usr/bin/promtool', import.meta.url));
  return [own, '/usr/bin/promtool'].find((path) => existsSync(path)) ?? null;
}
