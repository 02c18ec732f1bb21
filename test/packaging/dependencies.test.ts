import { readFile } from 'node:fs/promises';
import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';
import { CLONE, output } from './packages.js';

/** Headers of the addon, which no program imports. */
const HEADERS = ['node-addon-api', 'node-api-headers'];

const { dependencies, engines } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));

/** Rows `| name | reason |` of the page, by name. */
async function reasons(): Promise<Map<string, string>> {
  const page = await readFile(`${CLONE}docs/PACKAGES.md`, 'utf8');
  const [, section = ''] = /\n## Dependencies\n(.*?)\n## /s.exec(page) ?? [];
  const found = new Map<string, string>();
  for (const [, names = '', reason = ''] of section.matchAll(/^\| (`.*`) \| (.+) \|$/gm)) {
    for (const [, name = ''] of names.matchAll(/`([^`]+)`/g)) found.set(name, reason);
  }
  return found;
}

/** Names of the npm packages that a file of ours is bundled with. */
async function bundledWith(entry: string): Promise<string[]> {
  const { metafile } = await build({
    ...{ entryPoints: [`${CLONE}${entry}`], absWorkingDir: CLONE, bundle: true, write: false },
    ...{ platform: 'node', format: 'esm', target: 'node20', metafile: true, logLevel: 'silent' },
  });
  const names = Object.keys(metafile.inputs).flatMap((path) => {
    const [, name] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path) ?? [];
    return name ?? [];
  });
  return [...new Set(names)].sort();
}

describe('dependencies', { timeout: 60_000 }, () => {
  it('each dependency has a reason in docs/PACKAGES.md, and each reason a dependency', async () => {
    const named = [...(await reasons()).keys()].sort();
    expect(named).toEqual([...Object.keys(dependencies), ...HEADERS].sort());
  });

  it.each(['src/cli/main.ts', 'src/library.ts'])(
    'every module that is bundled into %s has its licence in the notices',
    async (entry) => {
      const notices = await output('node', ['scripts/package-parts/third-party.mjs', 'licences'], {
        cwd: CLONE,
      });
      const texts = new Map(
        [...notices.matchAll(/={78}\n(\S+) \S+ \(.*\)\n={78}\n([^=]*)/g)].map(
          ([, name = '', text = '']) => [name, text.trim()],
        ),
      );
      const modules = await bundledWith(entry);
      expect(modules).toContain('zod');
      for (const name of modules) expect(texts.get(name)?.length, name).toBeGreaterThan(200);
    },
  );

  it('the releases of Node that the tests can run with are those of engines', async () => {
    const script = await readFile(`${CLONE}scripts/test-parts/on-node`, 'utf8');
    const releases = [...script.matchAll(/^ {2}(\d+)\)$/gm)].map(([, major]) => major);
    expect(releases).toEqual([...engines.node.matchAll(/[\^=](\d+)/g)].map(([, major]) => major));
  });
});
