import { VolumeError } from './volume-error.js';

/** Checks what a caller says of a volume; errors call it as the caller does. */
export class VolumeInput {
  readonly #what: string;

  /** `what`: "options", for example. */
  constructor(what: string) {
    this.#what = what;
  }

  invalid(message: string): VolumeError {
    return new VolumeError('invalid', `The volume's ${this.#what}: ${message}.`);
  }

  /** Throws VolumeError `invalid` for another value. */
  oneOf<T extends string>(name: string, value: string, known: readonly T[]): T {
    const found = known.find((each) => each === value);
    if (found !== undefined) return found;
    const given = JSON.stringify(value.slice(0, 60));
    throw this.invalid(`${name} is one of ${known.join(', ')}, not ${given}`);
  }

  /** Throws VolumeError `invalid` if the text is not the number of a LUN. */
  lun(text: string): number {
    if (/^\d{1,8}$/.test(text)) return Number(text);
    throw this.invalid(`lun is not a number: ${JSON.stringify(text)}`);
  }
}
