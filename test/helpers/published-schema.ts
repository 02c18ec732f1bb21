/** The JSON schemas of docs/, read from their files as a stranger would. */
import { readFileSync } from 'node:fs';
import * as z from 'zod';

export function schemaFile(name: string): URL {
  return new URL(`../../docs/json-schema/${name}.json`, import.meta.url);
}

export function published(name: string): z.ZodType {
  const json = JSON.parse(readFileSync(schemaFile(name), 'utf8')) as Record<string, unknown>;
  return z.fromJSONSchema(json as Parameters<typeof z.fromJSONSchema>[0]);
}

/** What a command printed with `--json`, once it is as the schema says. */
export function checked(name: string, text: string): unknown {
  const value: unknown = JSON.parse(text);
  published(name).parse(value);
  return value;
}
