import { EVENT_HEAD, EVENT_TEXTS, LABEL_TEXTS } from './event-texts.mjs';
import { code, table } from './markdown.mjs';
import { fieldRows } from './schema-rows.mjs';

/** @typedef {import('./tables.mjs').Tables} Tables */
/** @typedef {import('./schema-rows.mjs').JsonSchema} JsonSchema */

const HEAD = `# Events and metrics

Made by \`scripts/reference/make.mjs\` from the schema of events (\`src/control/control-results.ts\`) and
the registry of metrics (\`src/daemon/metrics.ts\`); a test fails if this page is not current.

## Events

\`iscsi-nbd events\` shows the events of the daemon, \`events --json\` prints one object a line, and
\`serve\` and \`attach\` print theirs with \`--json\`. The daemon's log has the same events, and
\`SubscribeEvents\` of the [control socket](CONTROL-API.md#subscribeevents) sends them. Every event has
\`time\` and \`sessionId\`. Names and fields are stable; texts in \`reason\`, \`message\` and the like can
change. The schema is [json-schema/event.json](json-schema/event.json).
`;

const METRICS = `## Metrics

\`iscsi-nbd daemon --metrics-listen 127.0.0.1:9301\` (or a socket path) serves them at \`/metrics\`, in the
format of Prometheus. The rules and the dashboard in \`packaging/monitoring\` use them
([OPERATIONS.md](OPERATIONS.md#monitoring)).
`;

/** @param {Tables} tables */
export function eventsPage(tables) {
  const json = /** @type {JsonSchema} */ (tables.z.toJSONSchema(tables.eventSchema));
  const events = (json.oneOf ?? json.anyOf ?? []).map((schema) => ({
    name: String(schema.properties?.['event']?.const),
    schema,
  }));
  const extra = Object.keys(EVENT_TEXTS).filter((name) => !events.some((one) => one.name === name));
  if (extra.length > 0) throw new Error(`event-texts.mjs has words for no event: ${extra}`);
  return [HEAD, ...events.map(eventSection), METRICS, `${metricTable(tables)}\n`].join('\n');
}

/** @param {{ readonly name: string, readonly schema: JsonSchema }} event */
function eventSection({ name, schema }) {
  const text = EVENT_TEXTS[name];
  if (text === undefined) throw new Error(`event-texts.mjs has no words for ${name}`);
  const { event: _event, ...properties } = schema.properties ?? {};
  const unknown = Object.keys(text.fields).filter((field) => properties[field] === undefined);
  if (unknown.length > 0) throw new Error(`the event ${name} has no field ${unknown}`);
  const texts = { ...EVENT_HEAD, ...text.fields };
  const context = { owner: name, named: new Map(), texts };
  const rows = fieldRows({ ...schema, properties }, context);
  return `### ${name}\n\n${text.when}\n\n${table(['field', 'type', 'meaning'], rows)}\n`;
}

/** @param {Tables} tables */
function metricTable({ metricsRegistry }) {
  const { registry } = metricsRegistry();
  const rows = registry.getMetricsAsArray().map((metric) => {
    const { labelNames = [] } = /** @type {{ labelNames?: readonly string[] }} */ (metric);
    return [
      code(metric.name),
      String(metric.type),
      labelNames.map(code).join(', '),
      `${metric.help}.`,
    ];
  });
  const labels = new Set(
    registry
      .getMetricsAsArray()
      .flatMap((metric) => /** @type {{ labelNames?: string[] }} */ (metric).labelNames ?? []),
  );
  const labelRows = [...labels].map((label) => {
    const meaning = LABEL_TEXTS[label];
    if (meaning === undefined) throw new Error(`event-texts.mjs has no words for label ${label}`);
    return [code(label), meaning];
  });
  return `${table(['metric', 'type', 'labels', 'meaning'], rows)}\n\n${table(['label', 'meaning'], labelRows)}`;
}
