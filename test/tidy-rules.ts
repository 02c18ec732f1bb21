import ts from 'typescript';
import sectionTitles from './rfc7143-sections.json' with { type: 'json' };

/** A file as the rules see it; `path` is relative to the repository, with `/`. */
export type SourceFile = { readonly path: string; readonly text: string };

/** A rule looks at one file and names what is wrong, each with its line. */
export type Rule = (file: SourceFile) => string[];

const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;
const LINE_COLUMNS_MAX = 100;

const FOLDER_FILES_MAX = 30;
/** Folders that grew without end once. */
const SMALLER_FOLDERS: Readonly<Record<string, number>> = { 'src/daemon': 14 };

/** The codec up to the session; each may import those before it. */
const ISCSI_ROOMS = [
  ...['iscsi/quirks', 'iscsi/pdu', 'iscsi/login', 'iscsi/connection', 'iscsi/session'],
];
/** What moves bytes, from numbers to sockets. */
const DATA_PATH = ['base', 'scsi', 'nbd', ...ISCSI_ROOMS, 'bridge', 'io'];
const SESSION_AND_BELOW = [...DATA_PATH, 'errors', 'config', 'lun', 'session'];

/** What a layer may import. A room of `iscsi` is a layer too. */
export const LAYER_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  scsi: ['base'],
  nbd: ['base'],
  target: ['base'],
  'iscsi/quirks': ['base'],
  'iscsi/pdu': ['base', 'scsi', 'iscsi/quirks'],
  'iscsi/login': ['base', 'scsi', 'iscsi/quirks', 'iscsi/pdu'],
  'iscsi/connection': ['base', 'scsi', 'iscsi/quirks', 'iscsi/pdu', 'iscsi/login'],
  'iscsi/session': ['base', 'scsi', ...ISCSI_ROOMS.slice(0, -1)],
  bridge: ['base', 'scsi', 'nbd'],
  io: ['base', 'scsi', 'nbd', ...ISCSI_ROOMS],
  errors: DATA_PATH,
  config: [...DATA_PATH, 'errors'],
  lun: [...DATA_PATH, 'errors', 'config'],
  session: [...DATA_PATH, 'errors', 'config', 'lun'],
  boot: [...DATA_PATH, 'errors', 'config'],
  check: SESSION_AND_BELOW,
  supervisor: SESSION_AND_BELOW,
  'boot-test': [...SESSION_AND_BELOW, 'supervisor'],
  demo: [...SESSION_AND_BELOW, 'supervisor', 'target'],
  control: [...SESSION_AND_BELOW, 'supervisor'],
  volume: [...SESSION_AND_BELOW, 'supervisor', 'control'],
  csi: [...SESSION_AND_BELOW, 'supervisor', 'control', 'volume'],
  'docker-plugin': [...SESSION_AND_BELOW, 'supervisor', 'control', 'volume'],
  workers: [...SESSION_AND_BELOW, 'supervisor', 'control'],
  daemon: [...SESSION_AND_BELOW, 'supervisor', 'control', 'workers', 'boot'],
  cli: [
    'base',
    ...['errors', 'config', 'session', 'boot', 'check', 'supervisor'],
    ...['boot-test', 'demo', 'control', 'volume', 'docker-plugin', 'csi', 'workers', 'daemon'],
  ],
};
/** The public entry may import anything but the command line. */
const LIBRARY = 'src/library.ts';

/** Layers that get time and randomness as values. */
const PURE_LAYERS = ['base', 'scsi', 'nbd', ...ISCSI_ROOMS, 'bridge'];
/** Layers, and one file of the target, that may use the operating system. */
const OS_LAYERS = [
  ...['io', 'errors', 'config', 'lun', 'session', 'boot', 'check', 'boot-test', 'demo'],
  ...['supervisor', 'control', 'volume', 'docker-plugin', 'csi', 'workers', 'daemon', 'cli'],
];
const OS_FILES = ['src/target/server.ts', LIBRARY];
/** Builtins that compute only. */
const PURE_BUILTINS = ['node:buffer', 'node:crypto', 'node:util'];
/** Packages that compute only. */
const PURE_PACKAGES: readonly string[] = [];
const ADDON_LOADER = 'src/io/native.ts';

/** `src/<layer>/…` gives the layer; a file directly in `src` has none. */
export function layerOf(path: string): string | null {
  return /^src\/(iscsi\/[^/]+|[^/]+)\//.exec(path)?.[1] ?? null;
}

/** Folders with more files of their own than one can take in at a glance. */
export function crowdedFolders(paths: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const path of paths) {
    const folder = path.slice(0, path.lastIndexOf('/'));
    counts.set(folder, (counts.get(folder) ?? 0) + 1);
  }
  return [...counts]
    .filter(([folder, count]) => count > (SMALLER_FOLDERS[folder] ?? FOLDER_FILES_MAX))
    .map(([folder, count]) => `${folder}: ${count} files`);
}

/** Modules a file names: imports, re-exports, `import()`, types as well as values. */
export function importsOf(file: SourceFile): string[] {
  const names: string[] = [];
  walk(file, (node) => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      const name = node.moduleSpecifier;
      if (name !== undefined && ts.isStringLiteral(name)) names.push(name.text);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const name = node.arguments[0];
      if (name !== undefined && ts.isStringLiteral(name)) names.push(name.text);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) names.push(node.argument.literal.text);
    }
  });
  return names;
}

/** The path of the TypeScript file a relative import means. */
export function resolveImport(from: string, name: string): string {
  const joined = new URL(name, `file:///${from}`).pathname.slice(1);
  return joined.replace(/\.js$/, '.ts');
}

/** Imports go down only, as `LAYER_IMPORTS` says. */
export const layers: Rule = (file) => {
  const layer = layerOf(file.path);
  const allowed = layer === null ? null : LAYER_IMPORTS[layer];
  if (allowed === undefined) return [`${file.path}: no layer is called ${layer}`];
  const wrong: string[] = [];
  for (const name of importsOf(file).filter((module) => module.startsWith('.'))) {
    const target = resolveImport(file.path, name);
    const targetLayer = layerOf(target);
    const fits =
      allowed === null
        ? file.path === LIBRARY && targetLayer !== 'cli'
        : targetLayer !== null && (targetLayer === layer || allowed.includes(targetLayer));
    if (!fits) wrong.push(`${file.path}: must not import ${target}`);
  }
  return wrong;
};

/** Sockets, files, timers and packages that use them stay out of the pure layers and the target. */
export const operatingSystem: Rule = (file) => {
  const layer = layerOf(file.path);
  if (layer === null || OS_LAYERS.includes(layer) || OS_FILES.includes(file.path)) return [];
  return importsOf(file)
    .filter((name) => !name.startsWith('.'))
    .filter((name) => !PURE_BUILTINS.includes(name) && !PURE_PACKAGES.includes(name))
    .map((name) => `${file.path}: must not import ${name}`);
};

const IMPURE_GLOBALS = new Set(
  'setTimeout setInterval setImmediate queueMicrotask process performance fetch'.split(' '),
);
const IMPURE_MEMBERS = new Set(['Math.random', 'Date.now']);
/** Functions of `node:crypto` that draw; a parameter of that name is the way to pass one in. */
const RANDOM_FUNCTION = /^(random[A-Z]\w*|getRandomValues|generate[A-Z]\w*)$/;

/** Pure layers read no clock, no randomness and no environment: these are passed in. */
export const purity: Rule = (file) => {
  if (!PURE_LAYERS.includes(layerOf(file.path) ?? '')) return [];
  return complaints(file, (node) => {
    if (ts.isIdentifier(node) && IMPURE_GLOBALS.has(node.text) && !isOwnName(node)) {
      return `uses ${node.text}`;
    }
    if (ts.isImportSpecifier(node)) {
      const name = (node.propertyName ?? node.name).text;
      return RANDOM_FUNCTION.test(name) ? `imports ${name}` : null;
    }
    if (ts.isPropertyAccessExpression(node)) {
      const owner = node.expression.getText();
      const name = `${owner}.${node.name.text}`;
      const isRandom = /crypto$/i.test(owner) && RANDOM_FUNCTION.test(node.name.text);
      return IMPURE_MEMBERS.has(name) || isRandom ? `uses ${name}` : null;
    }
    const isDate = ts.isNewExpression(node) && node.expression.getText() === 'Date';
    return isDate && (node.arguments?.length ?? 0) === 0 ? 'reads the clock with new Date' : null;
  });
};

/** A member or property of ours that happens to have the name of a global. */
function isOwnName(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) {
    return parent.name === node && parent.expression.getText() !== 'globalThis';
  }
  const isMember =
    ts.isPropertyAssignment(parent) ||
    ts.isPropertySignature(parent) ||
    ts.isMethodDeclaration(parent) ||
    ts.isMethodSignature(parent);
  return isMember && parent.name === node;
}

/** No `any`, non-null `!`, `enum` or default export. */
export const syntax: Rule = (file) =>
  complaints(file, (node) => {
    if (node.kind === ts.SyntaxKind.AnyKeyword) return 'has `any`';
    if (ts.isNonNullExpression(node)) return 'has a non-null `!`';
    if (ts.isPropertyDeclaration(node) && node.exclamationToken) return 'has a non-null `!`';
    if (ts.isEnumDeclaration(node)) return 'has an enum';
    if (ts.isExportAssignment(node)) return 'has a default export';
    const isRenamed = ts.isExportSpecifier(node) && node.name.text === 'default';
    const isKeyword =
      node.kind === ts.SyntaxKind.DefaultKeyword && !ts.isDefaultClause(node.parent);
    return isRenamed || isKeyword ? 'has a default export' : null;
  });

/** A file is one idea of at most 400 lines. */
export const fileLength: Rule = ({ path, text }) => {
  const lines = text.replace(/\n$/, '').split('\n').length;
  return lines > FILE_LINES_MAX ? [`${path}: ${lines} lines`] : [];
};

export const lineWidth: Rule = ({ path, text }) =>
  text
    .split('\n')
    .map((line, index) => ({ columns: [...line].length, number: index + 1 }))
    .filter(({ columns }) => columns > LINE_COLUMNS_MAX)
    .map(({ columns, number }) => `${path}:${number}: ${columns} columns`);

/** Functions, methods and arrows are at most 70 lines long. */
export const functionLength: Rule = (file) =>
  complaints(file, (node, source) => {
    if (!ts.isFunctionLike(node) || !('body' in node) || node.body === undefined) return null;
    const first = source.getLineAndCharacterOfPosition(node.getStart()).line;
    const lines = source.getLineAndCharacterOfPosition(node.getEnd()).line - first + 1;
    return lines > FUNCTION_LINES_MAX ? `has a function of ${lines} lines` : null;
  });

/** Files are named after their one noun, in kebab-case; no drawers for everything. */
export const fileName: Rule = ({ path }) => {
  const name = path.slice(path.lastIndexOf('/') + 1);
  if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.test|\.config)?\.ts$/.test(name))
    return [`${path}: not kebab-case`];
  const isDrawer = /^(index|utils?|helpers?|misc|common)\.ts$/.test(name);
  return isDrawer && path.startsWith('src/') ? [`${path}: a name that says nothing`] : [];
};

/** What people call; the parts of these, and the tools of maintainers, are in folders. */
const SCRIPTS = ['README.md', 'bench', 'demo', 'install', 'package', 'setup', 'test'];

/** The top of `scripts/` is short enough to be read as a list of what there is. */
export const scriptsTop: Rule = ({ path }) => {
  const name = /^scripts\/([^/]+)$/.exec(path)?.[1];
  return name === undefined || SCRIPTS.includes(name) ? [] : [`${path}: belongs into a folder`];
};

/** Only one file loads the addon. */
export const addonLoader: Rule = (file) => {
  if (file.path === ADDON_LOADER) return [];
  return complaints(file, (node) => {
    if (ts.isStringLiteralLike(node) && /\.node$/.test(node.text)) return 'names the addon';
    return ts.isIdentifier(node) && node.text === 'dlopen' ? 'loads an addon' : null;
  });
};

const TITLES: Readonly<Record<string, string | undefined>> = sectionTitles;

/** `RFC 7143 §n (Title)`: the section exists and the title is its own. */
export const citations: Rule = ({ path, text }) => {
  // A citation may run over the end of a comment's line.
  const flat = text.replace(/\n[ \t]*(?:\*(?!\/)|\/\/|#)?[ \t]*/g, ' ');
  return [...flat.matchAll(/RFC 7143 §([0-9A-E][0-9.]*)/g)].flatMap((match) => {
    const section = (match[1] ?? '').replace(/\.$/, '');
    const title = TITLES[section];
    if (title === undefined) return [`${path}: RFC 7143 has no §${section}`];
    const rest = flat.slice(match.index + 'RFC 7143 §'.length + section.length);
    return rest.startsWith(` (${title})`)
      ? []
      : [`${path}: write "RFC 7143 §${section} (${title})"`];
  });
};

/** Sections named in tests, also without their title, exist. */
export const citedSections: Rule = ({ path, text }) =>
  [...text.matchAll(/RFC 7143 §([0-9A-E][0-9.]*)/g)]
    .map((match) => (match[1] ?? '').replace(/\.$/, ''))
    .filter((section) => TITLES[section] === undefined)
    .map((section) => `${path}: RFC 7143 has no §${section}`);

/** Where the rows of `brokenRule` become errors. */
const QUIRK_TABLE = 'src/iscsi/quirks/quirks.ts';
/** `new ProtocolError('11.8', …)` names a section that exists. */
export const errorSections: Rule = (file) =>
  complaints(file, (node) => {
    if (!ts.isNewExpression(node) || node.expression.getText() !== 'ProtocolError') return null;
    const section = node.arguments?.[0];
    if (section === undefined || !ts.isStringLiteralLike(section)) return null;
    return TITLES[section.text] === undefined ? `RFC 7143 has no §${section.text}` : null;
  });

/** A ProtocolError of the initiator has a row in the table of quirks: `brokenRule` makes it. */
export const errorRows: Rule = (file) => {
  if (file.path === QUIRK_TABLE || layerOf(file.path) === 'target') return [];
  return complaints(file, (node) =>
    ts.isNewExpression(node) && node.expression.getText() === 'ProtocolError'
      ? 'has a ProtocolError without a row in src/iscsi/quirks: make it by brokenRule'
      : null,
  );
};

/** First words of a title whose subject is missing: the title reads only after its `describe`. */
const SUBJECTLESS = new Set(
  [
    'about above after again also although and as at because before between beyond but by during',
    'for from if in instead into it its like never not of on once or out outside',
    'over past per rather since than that then there they though through to under unless until',
    'upon when where which while who whose with within without',
    'are be been can cannot come could did do does had has have is may might must need should was',
    'were will would',
    'accepts adds advances asks becomes begins belongs brings carries comes continues decodes',
    'drops ends exists exits expects fails falls finds fits follows forgets gets gives goes grows',
    'hears holds honours ignores keeps knows leaves lets loses makes',
    'opens outlives passes prefers prints proves puts reaches refuses rejects releases removes',
    'repeats reports rises says sees sends serves shows stays stops survives takes tells',
    'throws uses waits wakes warns',
    'carry fail give keep refuse survive take told untold',
  ].flatMap((words) => words.split(' ')),
);

/** A title of a test is a clause with its own subject, so that it reads without its `describe`. */
export const testTitles: Rule = (file) =>
  complaints(file, (node) => {
    const title = ts.isCallExpression(node) ? titleOfTest(node) : null;
    const first = title === null ? null : /^[a-z]+(?![\w.=-])/.exec(title);
    return first !== null && SUBJECTLESS.has(first[0]) ? `has no subject in "${title}"` : null;
  });

/** `it('title', …)`, `test.each(rows)('title', …)`, also with a template; null for other calls. */
function titleOfTest(call: ts.CallExpression): string | null {
  let callee: ts.Expression = call.expression;
  while (ts.isCallExpression(callee) || ts.isPropertyAccessExpression(callee)) {
    callee = callee.expression;
  }
  const [title] = call.arguments;
  if (!ts.isIdentifier(callee) || !['it', 'test'].includes(callee.text)) return null;
  if (title !== undefined && ts.isTemplateExpression(title)) return title.head.text;
  return title !== undefined && ts.isStringLiteralLike(title) ? title.text : null;
}

/** Circles among files, each as the list of its paths; types count as well as values. */
export function importCycles(files: readonly SourceFile[]): string[] {
  const edges = new Map(
    files.map((file) => [
      file.path,
      importsOf(file)
        .filter((name) => name.startsWith('.'))
        .map((name) => resolveImport(file.path, name)),
    ]),
  );
  const done = new Set<string>();
  const way: string[] = [];
  const cycles: string[] = [];
  const visit = (path: string): void => {
    const start = way.indexOf(path);
    if (start >= 0) cycles.push([...way.slice(start), path].join(' → '));
    if (start >= 0 || done.has(path)) return;
    way.push(path);
    for (const next of edges.get(path) ?? []) visit(next);
    way.pop();
    done.add(path);
  };
  for (const path of edges.keys()) visit(path);
  return cycles;
}

function complaints(
  file: SourceFile,
  look: (node: ts.Node, source: ts.SourceFile) => string | null,
): string[] {
  const found: string[] = [];
  walk(file, (node, source) => {
    const words = look(node, source);
    if (words === null) return;
    const { line } = source.getLineAndCharacterOfPosition(node.getStart());
    found.push(`${file.path}:${line + 1}: ${words}`);
  });
  return found;
}

const PARSED = new WeakMap<SourceFile, ts.SourceFile>();

function walk(file: SourceFile, visit: (node: ts.Node, source: ts.SourceFile) => void): void {
  let source = PARSED.get(file);
  if (source === undefined) {
    source = ts.createSourceFile(file.path, file.text, ts.ScriptTarget.ES2022, true);
    PARSED.set(file, source);
  }
  const parsed = source;
  const step = (node: ts.Node): void => {
    visit(node, parsed);
    ts.forEachChild(node, step);
  };
  step(parsed);
}
