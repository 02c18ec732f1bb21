import type { LunField } from '../scsi/command.js';
import { lunEquals, lunField, lunFieldOfHex, lunFieldToHex, lunNumber } from '../scsi/lun.js';

/**
 * The fields by which a target knows the LUNs of one session, by plain number. The same number has
 * several fields (SAM-5 §4.7: 0005h, 4005h, …), which may be different logical units; a LUN is
 * addressed by the one that the target reported. The disk that is made of a LUN fixes its field:
 * questions and data of one unit go to one place, whatever the target reports later.
 */
export class LunFields {
  /** Told, once for each field, of one that cannot be used beside another of the same number. */
  onLeftOut: (words: string) => void = () => undefined;
  /** The target has reported its LUNs. */
  isReported = false;
  readonly #fixed = new Map<number, LunField>();
  #reported = new Map<number, LunField>();
  readonly #told = new Set<string>();

  fieldOf(lun: number): LunField {
    return this.#fixed.get(lun) ?? this.#reported.get(lun) ?? lunField(lun);
  }

  /** From now on the LUN has this field; without one, what was last reported, or is usual. */
  fix(lun: number, hex?: string): LunField {
    const field =
      this.#fixed.get(lun) ?? (hex === undefined ? this.fieldOf(lun) : lunFieldOfHex(hex));
    this.#fixed.set(lun, field);
    return field;
  }

  /** 16 hex digits, for records; undefined for the field that is usual for the number. */
  hexOf(lun: number): string | undefined {
    const field = this.fieldOf(lun);
    return lunEquals(field, lunField(lun)) ? undefined : lunFieldToHex(field);
  }

  /** Takes the list of a target. Returns the numbers that can be used, in its order, each once. */
  reported(fields: readonly LunField[]): number[] {
    this.isReported = true;
    this.#reported = usedFields(fields);
    const luns: number[] = [];
    for (const field of fields) {
      const lun = lunNumber(field);
      if (lun === null) continue;
      if (lunEquals(field, this.fieldOf(lun))) luns.push(lun);
      else this.#leftOut(lun, lunFieldToHex(field));
    }
    return luns;
  }

  #leftOut(lun: number, hex: string): void {
    if (this.#told.has(hex)) return;
    this.#told.add(hex);
    const used = lunFieldToHex(this.fieldOf(lun));
    this.onLeftOut(
      `LUN ${lun} has the address ${used} in this session; the target reports ${hex} too, which ` +
        'has the same number: that unit is left out. Give it another number at the target',
    );
  }
}

/** For each number the usual field where the target reports that, else its first. */
function usedFields(fields: readonly LunField[]): Map<number, LunField> {
  const used = new Map<number, LunField>();
  for (const field of fields) {
    const lun = lunNumber(field);
    if (lun === null) continue;
    if (!used.has(lun) || lunEquals(field, lunField(lun))) used.set(lun, field);
  }
  return used;
}
