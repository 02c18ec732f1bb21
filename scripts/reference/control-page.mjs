import { code, table } from './markdown.mjs';
import { METHOD_TEXTS, RPC_CODE_TEXTS } from './method-texts.mjs';
import { fieldRows, fingerprint, typeText } from './schema-rows.mjs';

/** @typedef {import('./tables.mjs').Tables} Tables */
/** @typedef {import('./method-texts.mjs').MethodText} MethodText */
/** @typedef {import('./schema-rows.mjs').JsonSchema} JsonSchema */
/** @typedef {import('./schema-rows.mjs').NamedObjects} NamedObjects */

const FIELDS = ['field', 'type', 'meaning'];

/** @param {Tables} tables */
function head({ CONTROL_PATH, LINE_BYTES_MAX, PROTOCOL_VERSION }) {
  return `# The control socket

Made by \`scripts/reference/make.mjs\` from the schemas of the methods
(\`src/control/control-methods.ts\`, \`src/control/control-results.ts\`); a test fails if this page is
not current.

\`iscsi-nbd daemon\` listens on the unix socket \`${CONTROL_PATH}\`; \`--control PATH\` or
\`ISCSI_NBD_CONTROL\` names another. A process that can open the socket can control every session
([SECURITY.md](../SECURITY.md)). The protocol is JSON-RPC 2.0, version ${PROTOCOL_VERSION} of the methods:

- One message a line, UTF-8, at most ${LINE_BYTES_MAX} bytes. Parameters are passed by name. Batches are not
  supported.
- A client may have 16 requests outstanding; the daemon then stops reading from it. The daemon
  accepts 128 clients and disconnects a client that is idle for 120 s and has no subscription.
- Method names are those of Microsoft's MSiSCSI_Operations, where that has such a method. Field names
  that begin with a capital are those of its WMI classes.

\`\`\`sh
echo '{"jsonrpc":"2.0","id":1,"method":"Version"}' | sudo socat - UNIX-CONNECT:${CONTROL_PATH}
\`\`\`

JSON Schemas of the results are in [json-schema](json-schema/README.md).
`;
}

/** @param {Tables} tables */
export function controlPage(tables) {
  const methods = Object.keys(tables.METHOD_PARAMS);
  const extra = Object.keys(METHOD_TEXTS).filter((name) => !methods.includes(name));
  if (extra.length > 0) throw new Error(`method-texts.mjs has words for no method: ${extra}`);
  const objects = sharedObjects(tables);
  /** @type {NamedObjects} */
  const named = new Map(objects.map(({ name, schema }) => [fingerprint(schema), name]));
  const context = { tables, named };
  return [
    head(tables),
    ...methods.map((name) => methodSection(context, name)),
    '## Objects\n',
    ...objects.map(({ name, schema }) => {
      const others = new Map([...named].filter(([, other]) => other !== name));
      const rows = fieldRows(schema, { owner: name.toLowerCase(), named: others });
      return `### ${name}\n\n${table(FIELDS, rows)}\n`;
    }),
    errorSection(tables),
  ].join('\n');
}

/** @param {Tables} tables */
function sharedObjects(tables) {
  const { z, sessionSchema, deviceSchema, statisticsSchema, pathSchema, persistentSchema } = tables;
  const schemas = {
    Session: sessionSchema,
    Device: deviceSchema,
    Statistics: statisticsSchema,
    Path: pathSchema,
    Persistent: persistentSchema,
  };
  return Object.entries(schemas).map(([name, schema]) => ({
    name,
    schema: /** @type {JsonSchema} */ (z.toJSONSchema(schema)),
  }));
}

/**
 * @param {{ readonly tables: Tables, readonly named: NamedObjects }} context
 * @param {string} name
 */
function methodSection(context, name) {
  const text = METHOD_TEXTS[name];
  if (text === undefined) throw new Error(`method-texts.mjs has no words for ${name}`);
  const ordered = [...text.errors].sort(([one], [two]) => one - two);
  const statuses = ordered.map(([status, key, condition]) => [
    String(status),
    key === '' ? '' : code(key),
    condition,
  ]);
  const errors =
    statuses.length === 0 ? '' : `\n${table(['exit status', 'code', 'if'], statuses)}\n`;
  return `## ${name}

${text.does}

${paramsText(context, name, text)}
${resultText(context, text)}
${errors}`;
}

/**
 * @param {{ readonly tables: Tables, readonly named: NamedObjects }} context
 * @param {string} name
 * @param {MethodText} text
 */
function paramsText({ tables, named }, name, text) {
  const schema = tables.METHOD_PARAMS[name];
  if (schema === undefined) throw new Error(`no method ${name}`);
  const json = /** @type {JsonSchema} */ (
    tables.z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  );
  const unused = Object.keys(tables.UNSUPPORTED_PARAMS);
  const known = Object.keys(json.properties ?? {}).filter((param) => !unused.includes(param));
  const extra = Object.keys(text.params).filter((param) => !known.includes(param));
  if (extra.length > 0) throw new Error(`${name} has no parameter ${extra}`);
  if (known.length === 0) return 'Parameters: none.\n';
  const rows = known.map((param) => {
    const meaning = text.params[param];
    if (meaning === undefined)
      throw new Error(`method-texts.mjs has no words for ${name}.${param}`);
    const isOptional = !json.required?.includes(param);
    const type = typeText(json.properties?.[param] ?? {}, named);
    return [code(param), `${type}${isOptional ? ' (optional)' : ''}`, meaning];
  });
  const refused = unused.filter((param) => json.properties?.[param] !== undefined);
  const note =
    refused.length === 0
      ? ''
      : `\nNot supported (exit status 27 if set): ${refused.map(code).join(', ')}.\n`;
  return `${table(['parameter', 'type', 'meaning'], rows)}\n${note}`;
}

/**
 * @param {{ readonly tables: Tables, readonly named: NamedObjects }} context
 * @param {MethodText} text
 */
function resultText({ tables, named }, { result }) {
  if (typeof result === 'object') {
    const rows = Object.entries(result).map(([name, meaning]) => [code(name), meaning]);
    if (rows.length === 0) return 'Result: an empty object.';
    return `Result:\n\n${table(['field', 'meaning'], rows)}`;
  }
  const schemas = {
    targets: tables.targetsSchema,
    login: tables.loginSchema,
    sessions: tables.sessionsSchema,
    devices: tables.devicesSchema,
    statisticsList: tables.statisticsListSchema,
    changed: tables.changedSchema,
    rescan: tables.rescanSchema,
    persistent: tables.persistentSchema,
    persistentList: tables.persistentListSchema,
  };
  const schema = schemas[/** @type {keyof typeof schemas} */ (result)];
  if (schema === undefined) throw new Error(`control-page.mjs has no schema ${result}`);
  const json = /** @type {JsonSchema} */ (tables.z.toJSONSchema(schema));
  if (named.has(fingerprint(json))) return `Result: ${typeText(json, named)}.`;
  return `Result:\n\n${table(FIELDS, fieldRows(json, { owner: result, named }))}`;
}

/** @param {Tables} tables */
function errorSection({ RpcCode, EXIT_CODES }) {
  const codes = Object.entries(RpcCode).map(([name, number]) => [
    String(number),
    RPC_CODE_TEXTS[/** @type {keyof typeof RPC_CODE_TEXTS} */ (name)],
  ]);
  const statuses = Object.values(EXIT_CODES).map(({ code: status, words }) => [
    String(status),
    words,
  ]);
  return `## Errors

${table(['code', 'meaning'], codes)}

The \`data\` of code ${RpcCode.failed} has \`code\`, \`exitCode\`, \`message\` and \`nextStep\`, and \`portal\`,
\`target\` and \`lun\` where they are known. Programs should test \`code\` and \`exitCode\`; the messages
can change. \`iscsi-nbd explain STATUS\` explains each exit status:

${table(['exit status', 'meaning'], statuses)}
`;
}
