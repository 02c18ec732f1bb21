import { code, table } from './markdown.mjs';
import { OPTION_GROUPS } from './option-groups.mjs';

/** @typedef {import('./tables.mjs').Tables} Tables */
/** @typedef {import('../../src/config/config-options.js').OptionName} OptionName */

const APPLIES = {
  now: 'at once',
  nextAttempt: 'at the next login attempt',
  nextReconnect: 'at the next reconnect',
  nextLogin: 'after a logout and a new login',
  nextStart: 'when the process starts again',
};

const HEAD = `# Configuration

Made by \`scripts/reference/make.mjs\` from the option table
(\`src/config/config-options.ts\`); a test fails if this page is not current.

An option is given as a flag, as an environment variable, or in \`/etc/iscsi-nbd/config.yaml\`
(\`--config FILE\` names another file). A flag takes precedence over the environment variable, and the
variable over the file. If none of them has the option, its default applies. A name or a value that
is not valid is an error that names the flag, the variable, or the line of the file.

- **File:** \`removalLatencySeconds: 300\`, one option a line, in YAML. A list is \`[a, b]\` or \`a, b\`.
- **Flag:** the name in lower case with dashes, without \`Seconds\` or \`Microseconds\`:
  \`--removal-latency 300\`.
- **Environment:** the flag in capitals with underscores: \`ISCSI_NBD_REMOVAL_LATENCY=300\`.
- **Control socket:** \`LoginOptions\` of \`LoginToTarget\` has the names of the file
  ([CONTROL-API.md](CONTROL-API.md)).
- **Yes and no** are also \`true\`/\`false\`, \`on\`/\`off\`, \`1\`/\`0\`. As a flag, \`--read-only\` is yes and
  \`--no-read-only\` is no.
- **Sizes** take \`KiB\`, \`MiB\`, \`GiB\` and \`TiB\`, or \`K\`, \`M\`, \`G\` and \`T\` (powers of 1024).

"Applies" says when another value counts for a session that is logged in already. What applies
at once or at the next attempt or reconnect can be changed with \`iscsi-nbd set\`;
\`iscsi-nbd session NAME\` lists every option of a session with its value and when a change applies.

open-iscsi's setting is the one that \`iscsi-nbd import-open-iscsi\` and the initramfs parameter
\`rd.iscsi.param=\` translate into the option.
`;

/** @param {Tables} tables */
export function configurationPage(tables) {
  const grouped = OPTION_GROUPS.flatMap(({ options }) => options);
  const missing = tables.OPTION_NAMES.filter((name) => !grouped.includes(name));
  if (missing.length > 0) throw new Error(`no group has the options ${missing.join(', ')}`);
  const all = ['name', 'meaning', 'values', 'default', 'applies'];
  const names = ['option', 'flag', 'environment variable', "open-iscsi's setting"];
  const sections = OPTION_GROUPS.map(({ title, options }) => {
    const rows = options.map((name) => meaningRow(tables, name));
    return `## ${title}\n\n${table(all, rows)}\n`;
  });
  const spellings = table(
    names,
    tables.OPTION_NAMES.map((name) => [
      code(name),
      code(`--${tables.flagOf(name)}`),
      code(tables.environmentNameOf(name)),
      tables.openIscsiNamesOf(name).map(code).join(', '),
    ]),
  );
  return `${[HEAD, ...sections, `## Spellings\n\n${spellings}\n`].join('\n')}`;
}

/**
 * @param {Tables} tables
 * @param {OptionName} name
 */
function meaningRow(tables, name) {
  const row = tables.OPTION_ROWS[name];
  const initial = 'defaultValue' in row ? shown(name, row.defaultValue) : '(none)';
  return [code(name), sentence(row.help), row.expects, initial, APPLIES[tables.appliesOf(name)]];
}

/** @param {string} help */
function sentence(help) {
  return help.startsWith('iSCSI') ? `${help}.` : `${help.charAt(0).toUpperCase()}${help.slice(1)}.`;
}

/**
 * A default as the configuration file writes it.
 * @param {string} name
 * @param {unknown} value
 */
function shown(name, value) {
  if (Array.isArray(value)) return value.length === 0 ? '(none)' : code(value.join(', '));
  if (typeof value === 'boolean') return code(value ? 'yes' : 'no');
  if (typeof value === 'number' && /Bytes/.test(name)) return code(`${value / 2 ** 20}MiB`);
  return code(String(value));
}
