import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  addonLoader,
  citations,
  citedSections,
  crowdedFolders,
  errorRows,
  errorSections,
  fileLength,
  fileName,
  functionLength,
  importCycles,
  LAYER_IMPORTS,
  layers,
  lineWidth,
  operatingSystem,
  purity,
  type Rule,
  type SourceFile,
  scriptsTop,
  syntax,
  testTitles,
} from './tidy-rules.js';

const ROOT = new URL('../', import.meta.url);

function filesUnder(folder: string, ending: RegExp): SourceFile[] {
  if (!existsSync(new URL(folder, ROOT))) return [];
  return readdirSync(new URL(folder, ROOT), { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .sort()
    .map((name) => `${folder}/${name}`)
    .filter((path) => statSync(new URL(path, ROOT)).isFile())
    .map((path) => ({ path, text: readFileSync(new URL(path, ROOT), 'utf8') }));
}

const SOURCES = filesUnder('src', /\.ts$/);
const NATIVE = filesUnder('native', /\.(cc|h)$/);
const TESTS = filesUnder('test', /\.ts$/);
const SCRIPTS = filesUnder('scripts', /./);

/** Each rule with the files it holds for and a file that breaks it, so that it can fail. */
const RULES: readonly {
  readonly title: string;
  readonly rule: Rule;
  readonly files: readonly SourceFile[];
  readonly broken: readonly SourceFile[];
}[] = [
  {
    title: 'imports go down only',
    rule: layers,
    files: SOURCES,
    broken: [
      source('src/base/a.ts', "import { b } from '../scsi/b.js';"),
      source('src/scsi/a.ts', "import type { B } from '../iscsi/pdu/b.js';"),
      source('src/iscsi/pdu/a.ts', "import { b } from '../session/b.js';"),
      source('src/iscsi/a.ts', ''),
      source('src/nbd/a.ts', "export { b } from '../scsi/b.js';"),
      source('src/bridge/a.ts', "const b = await import('../io/b.js');"),
      source('src/target/a.ts', "let b: import('../iscsi/pdu/b.js').B;"),
      source('src/cli/a.ts', "import '../io/b.js';"),
      source('src/daemon/a.ts', "import '../cli/b.js';"),
      source('src/library.ts', "import './cli/b.js';"),
      source('src/other.ts', "import './base/b.js';"),
      source('src/lib/a.ts', ''),
    ],
  },
  {
    title: 'only io, what stands on it and one file of the target use the operating system',
    rule: operatingSystem,
    files: SOURCES,
    broken: [
      source('src/iscsi/pdu/a.ts', "import net from 'node:net';"),
      source('src/bridge/a.ts', "import { setTimeout } from 'node:timers/promises';"),
      source('src/target/a.ts', "import { openSync } from 'node:fs';"),
      source('src/nbd/a.ts', "import pino from 'pino';"),
    ],
  },
  {
    title: 'protocol and policy read no clock and no randomness',
    rule: purity,
    files: SOURCES,
    broken: [
      source('src/iscsi/pdu/a.ts', 'const a = Date.now();'),
      source('src/iscsi/pdu/b.ts', 'const a = new Date();'),
      source('src/bridge/a.ts', 'setTimeout(() => {}, 1);'),
      source('src/bridge/b.ts', 'globalThis.setTimeout(() => {}, 1);'),
      source('src/scsi/a.ts', 'const a = performance.now();'),
      source('src/nbd/a.ts', 'const a = Math.random();'),
      source('src/base/a.ts', "import { randomBytes } from 'node:crypto';"),
      source('src/base/b.ts', 'const a = crypto.randomUUID();'),
    ],
  },
  {
    title: 'no any, non-null !, enum or default export',
    rule: syntax,
    files: SOURCES,
    broken: [
      source('src/base/a.ts', 'let a: any;'),
      source('src/base/b.ts', 'const a = b!;'),
      source('src/base/c.ts', 'class A { b!: number; }'),
      source('src/base/d.ts', 'enum A { b }'),
      source('src/base/e.ts', 'export default 1;'),
      source('src/base/f.ts', 'export default function a() {}'),
      source('src/base/g.ts', 'const a = 1; export { a as default };'),
    ],
  },
  {
    title: 'a file has at most 400 lines',
    rule: fileLength,
    files: [...SOURCES, ...NATIVE],
    broken: [source('native/a.cc', 'int a;\n'.repeat(401))],
  },
  {
    title: 'a line has at most 100 columns',
    rule: lineWidth,
    files: [...SOURCES, ...NATIVE],
    broken: [source('src/base/a.ts', `// ${'a'.repeat(98)}`)],
  },
  {
    title: 'a function has at most 70 lines',
    rule: functionLength,
    files: SOURCES,
    broken: [
      source('src/base/a.ts', `function a() {\n${'b();\n'.repeat(69)}}`),
      source('src/base/b.ts', `class A { b() {\n${'b();\n'.repeat(69)}} }`),
      source('src/base/c.ts', `const a = () => {\n${'b();\n'.repeat(69)}};`),
    ],
  },
  {
    title: 'files are called after their noun, in kebab-case',
    rule: fileName,
    files: [...SOURCES, ...TESTS],
    broken: [
      source('src/base/aB.ts', ''),
      source('src/base/utils.ts', ''),
      source('src/scsi/index.ts', ''),
    ],
  },
  {
    title: 'the top of scripts/ has only what people call',
    rule: scriptsTop,
    files: SCRIPTS,
    broken: [source('scripts/vm', ''), source('scripts/bench-report.mjs', '')],
  },
  {
    title: 'one file loads the addon',
    rule: addonLoader,
    files: SOURCES,
    broken: [
      source('src/io/a.ts', "require('../../build/Release/iscsi_nbd.node');"),
      source('src/io/b.ts', 'process.dlopen(module, path);'),
    ],
  },
  {
    title: 'a citation of RFC 7143 has number and title, and they belong together',
    rule: citations,
    files: [...SOURCES, ...NATIVE],
    broken: [
      source('src/iscsi/pdu/a.ts', '// RFC 7143 §11.8 says so'),
      source('src/iscsi/pdu/b.ts', '// RFC 7143 §11.8 (Reject)'),
      source('src/iscsi/pdu/c.ts', '// RFC 7143 §19.1 (Nothing)'),
    ],
  },
  {
    title: 'a test cites sections that RFC 7143 has',
    rule: citedSections,
    files: TESTS.filter(({ path }) => !path.startsWith('test/tidy')),
    broken: [source('test/a.test.ts', "it('holds (RFC 7143 §19.1)')")],
  },
  {
    title: 'a ProtocolError names a section that RFC 7143 has',
    rule: errorSections,
    files: SOURCES,
    broken: [source('src/iscsi/pdu/a.ts', "throw new ProtocolError('19.1', 'no');")],
  },
  {
    title: 'a ProtocolError of the initiator has a row in the table of quirks',
    rule: errorRows,
    files: SOURCES,
    broken: [
      source('src/iscsi/pdu/a.ts', "throw new ProtocolError('11.8', 'no');"),
      source('src/session/a.ts', "throw new ProtocolError('11.8', 'no');"),
    ],
  },
  {
    title: 'a test title has its own subject',
    rule: testTitles,
    files: TESTS,
    broken: [
      source('test/a.test.ts', "it('that is kept', () => {});"),
      source('test/b.test.ts', "test.each([1])('of %i blocks is read', () => {});"),
      source('test/c.test.ts', "it.skipIf(true)('prints a line', () => {});"),
      source('test/d.test.ts', 'it(`is so`, () => {});'),
    ],
  },
];

function source(path: string, text: string): SourceFile {
  return { path, text };
}

describe.each(RULES)('$title', ({ title, rule, files, broken }) => {
  it(`every file keeps the rule: ${title}`, () => {
    expect(files.flatMap(rule)).toEqual([]);
  });

  it.each(broken)(`the rule sees what breaks it: $path (${title})`, (file) => {
    expect(rule(file)).not.toEqual([]);
  });
});

describe('importCycles', () => {
  it('the sources have no circle of imports', () => {
    expect(importCycles(SOURCES)).toEqual([]);
  });

  it('the rule sees a circle', () => {
    const circle = [
      source('src/base/a.ts', "import { b } from './b.js';"),
      source('src/base/b.ts', "import type { C } from './c.js';"),
      source('src/base/c.ts', "export { a } from './a.js';"),
    ];
    expect(importCycles(circle)).toEqual([
      'src/base/a.ts → src/base/b.ts → src/base/c.ts → src/base/a.ts',
    ]);
  });
});

describe('the rooms', () => {
  const rooms = Object.keys(LAYER_IMPORTS);

  it('the rooms have an order: of any two at most one may import the other', () => {
    const both = rooms.filter((one) =>
      LAYER_IMPORTS[one]?.some((other) => LAYER_IMPORTS[other]?.includes(one)),
    );
    expect(both).toEqual([]);
  });

  it('the rooms refuse an import from any room that is not below them', () => {
    const missed: string[] = [];
    for (const room of rooms) {
      for (const other of rooms) {
        if (other === room || LAYER_IMPORTS[room]?.includes(other)) continue;
        const up = '../'.repeat(room.split('/').length);
        const planted = source(`src/${room}/a.ts`, `import { b } from '${up}${other}/b.js';`);
        if (layers(planted).length === 0) missed.push(`${room} imports ${other}`);
      }
    }
    expect(missed).toEqual([]);
  });

  it('no folder has more files than one can take in at a glance', () => {
    expect(crowdedFolders(SOURCES.map(({ path }) => path))).toEqual([]);
  });

  it('crowded folders are reported', () => {
    const many = Array.from({ length: 31 }, (_, index) => `src/lun/${index}.ts`);
    const some = Array.from({ length: 15 }, (_, index) => `src/daemon/${index}.ts`);
    const found = ['src/lun: 31 files', 'src/daemon: 15 files'];
    expect(crowdedFolders([...many, ...some])).toEqual(found);
  });
});

describe('exceptions of the rules', () => {
  it('a citation may run over the end of a line', () => {
    const file = source(
      'src/iscsi/pdu/a.ts',
      '/**\n * As RFC 7143 §11.8 (Ready To\n * Transfer (R2T)).\n */',
    );
    expect(citations(file)).toEqual([]);
  });

  it('a member of ours may have the name of a global', () => {
    const file = source('src/iscsi/pdu/a.ts', 'this.#port.process(1); const a = { fetch: 1 };');
    expect(purity(file)).toEqual([]);
  });

  it('a source of randomness may be passed in', () => {
    const file = source(
      'src/iscsi/pdu/a.ts',
      'function a(randomBytes: Random) { randomBytes(16); }',
    );
    expect(purity(file)).toEqual([]);
  });

  it('a title may begin with a name that has a word of the list in it', () => {
    const file = source('test/a.test.ts', "it('onFirst is called once', () => {});");
    expect(testTitles(file)).toEqual([]);
  });

  it('an instant that was passed in may be shown', () => {
    expect(purity(source('src/bridge/a.ts', 'new Date(atMs).toISOString();'))).toEqual([]);
  });
});
