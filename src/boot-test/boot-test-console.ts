import { StringDecoder } from 'node:string_decoder';

/** Beyond this a line is cut: kernels and boot loaders stay far below. */
const LINE_LENGTH_MAX = 4096;
/** Longer ones are no control sequences: what follows is text again. */
const SEQUENCE_LENGTH_MAX = 64;
const STRING_LENGTH_MAX = 4096;

const ESC = '\x1b';
const BEL = '\x07';
const BACKSPACE = '\b';

/** Where in a control sequence of ECMA-48 the last character was. */
type Place = 'text' | 'escape' | 'control' | 'string' | 'stringEscape';

/**
 * Lines of text out of what a serial console sends to a terminal. Control sequences (ECMA-48) are
 * left out, and those that move the cursor to another line, as firmware paints its screen, end the
 * line. What an image sends is hostile: everything that is kept has a bound.
 */
export class ConsoleText {
  readonly #decoder = new StringDecoder('utf8');
  #place: Place = 'text';
  #sequenceLength = 0;
  #parameters = '';
  #line = '';
  #lines: string[] = [];

  push(chunk: Buffer): void {
    for (const character of this.#decoder.write(chunk)) this.#take(character);
  }

  /** Lines waiting to be taken. */
  get waiting(): number {
    return this.#lines.length;
  }

  /** The last line as far as it has come; a prompt never ends. */
  get unfinished(): string {
    return this.#line;
  }

  /** The lines that have ended since the last call; without empty ones. */
  takeLines(): string[] {
    const lines = this.#lines;
    this.#lines = [];
    return lines;
  }

  #take(character: string): void {
    switch (this.#place) {
      case 'text':
        this.#takeText(character);
        return;
      case 'escape':
        this.#takeEscape(character);
        return;
      case 'control':
        this.#takeControl(character);
        return;
      case 'string':
        this.#sequenceLength += 1;
        if (character === BEL || this.#sequenceLength > STRING_LENGTH_MAX) this.#place = 'text';
        else if (character === ESC) this.#place = 'stringEscape';
        return;
      case 'stringEscape':
        this.#place = character === '\\' ? 'text' : 'string';
    }
  }

  #takeText(character: string): void {
    if (character === ESC) this.#place = 'escape';
    else if (character === '\n' || character === '\r') this.#endLine();
    else if (character === BACKSPACE) this.#line = this.#line.slice(0, -1);
    else if (character === '\t') this.#append(' ');
    // Those of ISO 8859-1 are control characters too, and some terminals obey them.
    else if (!/\p{Cc}/u.test(character)) this.#append(character);
  }

  #takeEscape(character: string): void {
    this.#sequenceLength = 0;
    this.#parameters = '';
    if (character === '[') this.#place = 'control';
    else if (/[\]PX^_]/.test(character)) this.#place = 'string';
    // An intermediate byte: the sequence has one character more.
    else if (!/[ -/]/.test(character)) this.#place = character === ESC ? 'escape' : 'text';
  }

  #takeControl(character: string): void {
    this.#sequenceLength += 1;
    if (character === ESC) {
      this.#place = 'escape';
      return;
    }
    const isFinal = /[@-~]/.test(character);
    if (!isFinal && this.#sequenceLength <= SEQUENCE_LENGTH_MAX) {
      this.#parameters += character;
      return;
    }
    this.#place = 'text';
    // Cursor up, down, to a line or to a place; erase in display.
    if (/[ABEFHJdf]/.test(character) && !this.#staysInLine(character)) this.#endLine();
  }

  /** SeaBIOS says in the middle of a word where the cursor is, as far as it knows. */
  #staysInLine(final: string): boolean {
    if (!/[Hf]/.test(final)) return false;
    const column = Number(this.#parameters.split(';')[1] ?? 1);
    const here = this.#line.length + 1;
    return column > 1 && (column === here || column === here - 1);
  }

  #append(character: string): void {
    this.#line += character;
    if (this.#line.length >= LINE_LENGTH_MAX) this.#endLine();
  }

  #endLine(): void {
    const line = this.#line.trimEnd();
    this.#line = '';
    if (line !== '') this.#lines.push(line);
  }
}
