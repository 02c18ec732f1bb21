// Makes the fuzz targets of test/fuzz one module that counts which of its blocks run, and notes what it
// compares with what.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import ts from 'typescript';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { factory } = ts;
/** Packages that are imported as they are. */
const OTHERS = [
  '@grpc/*',
  'cli-table3',
  'fast-check',
  'pino',
  'pino-pretty',
  'prom-client',
  'yargs',
];
const REQUIRE = `import { createRequire as requireOf } from 'node:module';
const require = requireOf(import.meta.url);`;
/** Constants of more characters are words for people. */
const TOKEN_LENGTH_MAX = 40;

/**
 * The path of the module made of `entry`. Beside its targets it exports `counters`, `tokens`.
 * Of packages only those count that read what others have written.
 * @param {string} entry
 */
export async function instrumented(entry) {
  const folder = join(ROOT, '.cache/fuzz');
  const bundled = await build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: OTHERS,
    // Some of them are CommonJS.
    banner: { js: REQUIRE },
  });
  const text = bundled.outputFiles[0]?.text ?? '';
  const path = join(folder, `${process.pid}-${entry.replaceAll('/', '-')}.mjs`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, counted(text));
  return path;
}

/** @param {string} text */
function counted(text) {
  const source = ts.createSourceFile('targets.mjs', text, ts.ScriptTarget.ES2022, true);
  const tokens = new Set();
  let count = 0;
  const count1 = () => {
    count += 1;
    const place = factory.createElementAccessExpression(
      factory.createIdentifier('counters'),
      count - 1,
    );
    return factory.createPostfixIncrement(place);
  };
  /** @param {ts.Node} node */
  const note = (node) => {
    if (ts.isStringLiteralLike(node) && node.text.length <= TOKEN_LENGTH_MAX) tokens.add(node.text);
    if (ts.isNumericLiteral(node)) tokens.add(Number(node.text));
  };
  /** @param {ts.TransformationContext} context */
  const transformer = (context) => {
    /** @type {ts.Visitor} */
    const visit = (node) => {
      note(node);
      if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node;
      const seen = ts.visitEachChild(node, visit, context);
      if (ts.isBlock(seen) && !ts.isClassStaticBlockDeclaration(node.parent)) {
        const first = factory.createExpressionStatement(count1());
        return factory.updateBlock(seen, [first, ...seen.statements]);
      }
      if (ts.isCaseOrDefaultClause(seen)) {
        const body = [factory.createExpressionStatement(count1()), ...seen.statements];
        if (ts.isDefaultClause(seen)) return factory.updateDefaultClause(seen, body);
        return factory.updateCaseClause(seen, seen.expression, body);
      }
      // Both sides of a condition, one of which may not be written.
      if (ts.isIfStatement(seen)) {
        const { expression, thenStatement, elseStatement } = seen;
        const otherwise = elseStatement === undefined ? bare() : bare(elseStatement);
        return factory.updateIfStatement(seen, expression, bare(thenStatement), otherwise);
      }
      if (ts.isConditionalExpression(seen)) {
        const { condition, questionToken, colonToken } = seen;
        const [yes, no] = [comma(seen.whenTrue), comma(seen.whenFalse)];
        return factory.updateConditionalExpression(
          seen,
          ...[condition, questionToken, yes, colonToken, no],
        );
      }
      if (ts.isBinaryExpression(seen) && EQUALITY.includes(seen.operatorToken.kind)) {
        const { left, right } = seen;
        const compared = factory.createIdentifier('compared');
        const call = factory.createCallExpression(compared, undefined, [left, right]);
        const isNot = seen.operatorToken.kind === ts.SyntaxKind.ExclamationEqualsEqualsToken;
        return isNot ? factory.createLogicalNot(call) : call;
      }
      if (ts.isBinaryExpression(seen) && LOGICAL.includes(seen.operatorToken.kind)) {
        const { left, operatorToken, right } = seen;
        return factory.updateBinaryExpression(seen, left, operatorToken, comma(right));
      }
      return seen;
    };
    /** @param {ts.Expression} value */
    const comma = (value) =>
      factory.createParenthesizedExpression(factory.createComma(count1(), value));
    /** @param {ts.Statement[]} statements at most one, which is counted already if it is a block */
    const bare = (...statements) => {
      const [first] = statements;
      if (first !== undefined && ts.isBlock(first)) return first;
      return factory.createBlock([factory.createExpressionStatement(count1()), ...statements]);
    };
    return (/** @type {ts.SourceFile} */ file) => ts.visitEachChild(file, visit, context);
  };
  const [changed] = ts.transform(source, [transformer]).transformed;
  if (changed === undefined) throw new Error('nothing was transformed');
  const head = [
    `export const counters = new Uint8Array(${count});`,
    `export const tokens = ${JSON.stringify([...tokens])};`,
    COMPARED,
  ];
  return `${head.join('\n')}\n${ts.createPrinter().printFile(changed)}`;
}

const EQUALITY = [
  ts.SyntaxKind.EqualsEqualsEqualsToken,
  ts.SyntaxKind.ExclamationEqualsEqualsToken,
];
/** The constants that the last input was compared with and did not have. */
const COMPARED = `export const wanted = [];
function compared(left, right) {
  if (left === right) return true;
  const type = typeof left;
  if ((type === 'string' || type === 'number') && type === typeof right && wanted.length < 256) {
    wanted.push(left, right);
  }
  return false;
}`;

const LOGICAL = [
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
];
