#!/usr/bin/env node
// Makes the documentation site, .cache/site, from the Markdown pages and the docstrings of src/library.ts,
// with TypeDoc. It fails on any warning, on a dead link in a page that it has made, and if a type of the
// library is used and not documented.
import { fileURLToPath } from 'node:url';
import { Application, Converter, KindRouter } from 'typedoc';
import { deadLinks } from './dead-links.mjs';
import { FRONT_PAGE, GROUPS } from './pages.mjs';

/** @import { DocumentReflection, Reflection } from 'typedoc' */

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const OUT = `${ROOT}.cache/site`;

/** @type {Map<unknown, string>} the names of the files of the site, by documents */
const fileNames = new Map();

/** Names that TypeDoc gives to documents: their paths without the ending. */
const GROUP_OF = new Map(
  GROUPS.flatMap(([group, pages]) => pages.map((page) => [page.replace(/\.md$/, ''), group])),
);

/**
 * The name in the navigation is the first heading.
 * @param {unknown} _context
 * @param {DocumentReflection} document
 */
function titled(_context, document) {
  const [first] = document.content;
  const heading = first?.kind === 'text' ? /^# (.+)\n+/.exec(first.text) : null;
  if (first === undefined || heading === null) throw new Error(`${document.name} has no title`);
  const words = document.name.toLowerCase().split('/').slice(-2);
  fileNames.set(document, words.join('-').replace(/^docs-|-readme$/g, ''));
  document.frontmatter['group'] = GROUP_OF.get(document.name) ?? '';
  document.name = heading[1]?.replaceAll('`', '') ?? '';
}

/** Pages keep the names of their files. */
class PageRouter extends KindRouter {
  /**
   * @override
   * @param {Reflection} reflection
   */
  getIdealBaseName(reflection) {
    const name = fileNames.get(reflection);
    return name === undefined ? super.getIdealBaseName(reflection) : `pages/${name}`;
  }
}

const app = await Application.bootstrap({
  name: 'iscsi-nbd',
  entryPoints: [`${ROOT}src/library.ts`],
  tsconfig: `${ROOT}scripts/site/tsconfig.json`,
  out: OUT,
  readme: ROOT + FRONT_PAGE,
  projectDocuments: GROUPS.flatMap(([, pages]) => pages.map((page) => ROOT + page)),
  groupOrder: [...GROUPS.map(([group]) => group), '*'],
  navigation: { includeGroups: true, includeCategories: false, excludeReferences: true },
  customCss: `${ROOT}scripts/site/site.css`,
  intentionallyNotExported: ['Settings', 'LunEvent'],
  highlightLanguages: ['typescript', 'javascript', 'sh', 'json', 'yaml', 'ini', 'toml', 'mermaid'],
  // scripts/test checks types in a step of its own.
  skipErrorChecking: true,
  disableSources: true,
  includeHierarchySummary: false,
  router: 'pages',
  githubPages: false,
  cleanOutputDir: true,
  treatWarningsAsErrors: true,
  validation: {
    notExported: true,
    invalidLink: true,
    rewrittenLink: true,
    unusedMergeModuleWith: true,
  },
  sluggerConfiguration: { lowercase: true },
});
app.renderer.defineRouter('pages', PageRouter);
app.converter.on(Converter.EVENT_CREATE_DOCUMENT, titled);
const project = await app.convert();
if (project === undefined) process.exit(1);
app.validate(project);
await app.generateDocs(project, OUT);
const dead = deadLinks(OUT);
for (const link of dead) console.error(link);
if (app.logger.warningCount > 0 || app.logger.errorCount > 0 || dead.length > 0) process.exit(1);
console.log(`${OUT}/index.html`);
