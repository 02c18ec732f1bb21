import { FIELD_TEXTS } from './field-texts.mjs';
import { code } from './markdown.mjs';

/**
 * What these pages use of JSON Schema.
 * @typedef {object} JsonSchema
 * @property {string | string[]} [type]
 * @property {unknown} [const]
 * @property {unknown[]} [enum]
 * @property {JsonSchema[]} [anyOf]
 * @property {JsonSchema[]} [oneOf]
 * @property {JsonSchema} [items]
 * @property {Record<string, JsonSchema>} [properties]
 * @property {string[]} [required]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [maxLength]
 * @property {string} [pattern]
 * @property {unknown} [default]
 */

/**
 * Objects that have a section of their own; others are laid out where they occur.
 * @typedef {ReadonlyMap<string, string>} NamedObjects schema as text → name
 */

/** @param {JsonSchema} schema */
export function fingerprint(schema) {
  return JSON.stringify([schema.properties, schema.required]);
}

/**
 * A row for each field, those of inner objects with the path to them: `portals[].host`.
 * @param {JsonSchema} schema
 * @param {{ readonly owner: string, readonly named: NamedObjects,
 *   readonly texts?: Readonly<Record<string, string>> }} context `texts` takes precedence
 * @param {string} [prefix]
 * @returns {string[][]}
 */
export function fieldRows(schema, context, prefix = '') {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const isRequired = schema.required?.includes(name) ?? false;
    const meaning = meaningOf(name, context);
    const type = `${typeText(field, context.named)}${isRequired ? '' : ' (optional)'}`;
    const inner = field.items ?? field;
    const path = `${prefix}${name}${field.items === undefined ? '' : '[]'}`;
    const row = [code(path), type, meaning];
    if (inner.properties === undefined || context.named.has(fingerprint(inner))) return [row];
    return [row, ...fieldRows(inner, context, `${path}.`)];
  });
}

/**
 * @param {string} name
 * @param {{ readonly owner: string, readonly texts?: Readonly<Record<string, string>> }} context
 */
function meaningOf(name, { owner, texts }) {
  const found = texts?.[name] ?? FIELD_TEXTS[`${owner}.${name}`] ?? FIELD_TEXTS[name];
  if (found === undefined) throw new Error(`field-texts.mjs has no words for ${owner}.${name}`);
  return found;
}

/**
 * @param {JsonSchema} schema
 * @param {NamedObjects} named
 * @returns {string}
 */
export function typeText(schema, named) {
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) return choices.map((one) => typeText(one, named)).join(' or ');
  if (schema.const !== undefined) return code(JSON.stringify(schema.const));
  if (schema.enum !== undefined) {
    return schema.enum.map((one) => code(JSON.stringify(one))).join(', ');
  }
  if (schema.items !== undefined) return `list of ${typeText(schema.items, named)}`;
  if (schema.properties !== undefined) {
    const name = named.get(fingerprint(schema));
    return name === undefined ? 'object' : `[${name}](#${name.toLowerCase()})`;
  }
  return scalarText(schema);
}

/** @param {JsonSchema} schema */
function scalarText({ type, minimum, maximum, maxLength, pattern }) {
  if (type === undefined) return 'any';
  const isSafe = (/** @type {number | undefined} */ bound) =>
    bound !== undefined && Math.abs(bound) < Number.MAX_SAFE_INTEGER;
  const bounds = isSafe(maximum) ? ` ${minimum} to ${maximum}` : '';
  const length = maxLength === undefined ? '' : ` up to ${maxLength} characters`;
  const digits = /^\^\[0-9a-f\]\{(\d+)\}\$$/.exec(pattern ?? '')?.[1];
  if (digits !== undefined) return `${digits} hexadecimal digits`;
  return `${[type].flat().join(' or ')}${bounds}${length}`;
}
