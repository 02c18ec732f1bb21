import { readFileSync } from 'node:fs';

/** The version in package.json, which lies two folders above this file, built or not. */
export function readVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const facts: unknown = JSON.parse(text);
  const version = typeof facts === 'object' && facts !== null && 'version' in facts;
  return version ? String(facts.version) : 'unknown';
}
