/** An iSCSI Boot Firmware Table as firmware makes it (version 1.03 of its specification). */

export type IbftFacts = {
  readonly initiatorName: string;
  readonly mac: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly target: {
    readonly address: string;
    readonly port: number;
    readonly lun: number;
    readonly name: string;
    readonly chap?: { readonly user: string; readonly secret: string };
  };
};

/** Places of the control, initiator, NIC and target structures, and of the strings. */
const AT = { control: 48, initiator: 72, nic: 152, target: 256, strings: 312 } as const;
const BYTES = { control: 18, initiator: 74, nic: 102, target: 54 } as const;
const VALID_AND_SELECTED = 3;

/** The table with its checksum, for `-acpitable file=`. */
export function ibftTable(facts: IbftFacts): Buffer {
  const table = Buffer.alloc(1024);
  table.write('iBFT', 0, 'latin1');
  table.writeUInt8(1, 8);
  table.write('TESTERTESTROOT', 10, 'latin1');
  const strings = new Strings(table);
  structure(table, 1, AT.control, BYTES.control, 0);
  table.writeUInt16LE(AT.initiator, AT.control + 8);
  table.writeUInt16LE(AT.nic, AT.control + 10);
  table.writeUInt16LE(AT.target, AT.control + 12);
  structure(table, 2, AT.initiator, BYTES.initiator, VALID_AND_SELECTED);
  strings.put(facts.initiatorName, AT.initiator + 70);
  structure(table, 3, AT.nic, BYTES.nic, VALID_AND_SELECTED);
  address(table, facts.address, AT.nic + 6);
  table.writeUInt8(facts.prefixLength, AT.nic + 22);
  address(table, facts.gateway, AT.nic + 24);
  Buffer.from(facts.mac.replaceAll(':', ''), 'hex').copy(table, AT.nic + 90);
  structure(table, 4, AT.target, BYTES.target, VALID_AND_SELECTED);
  const { target } = facts;
  address(table, target.address, AT.target + 6);
  table.writeUInt16LE(target.port, AT.target + 22);
  table.writeUInt8(target.lun, AT.target + 25);
  table.writeUInt8(target.chap === undefined ? 0 : 1, AT.target + 32);
  strings.put(target.name, AT.target + 34);
  if (target.chap !== undefined) {
    strings.put(target.chap.user, AT.target + 38);
    strings.put(target.chap.secret, AT.target + 42);
  }
  table.writeUInt32LE(table.length, 4);
  const sum = table.reduce((total, byte) => total + byte, 0);
  table.writeUInt8(-sum & 0xff, 9);
  return table;
}

function structure(table: Buffer, id: number, at: number, bytes: number, flags: number): void {
  table.writeUInt8(id, at);
  table.writeUInt8(1, at + 1);
  table.writeUInt16LE(bytes, at + 2);
  table.writeUInt8(flags, at + 5);
}

/** IPv4 as an IPv4-mapped IPv6 address. */
function address(table: Buffer, text: string, at: number): void {
  table.writeUInt16BE(0xffff, at + 10);
  Buffer.from(text.split('.').map(Number)).copy(table, at + 12);
}

class Strings {
  readonly #table: Buffer;
  #at: number = AT.strings;

  constructor(table: Buffer) {
    this.#table = table;
  }

  /** Writes a string with its zero, and its length and place at `reference`. */
  put(text: string, reference: number): void {
    const bytes = this.#table.write(text, this.#at, 'latin1');
    this.#table.writeUInt16LE(bytes, reference);
    this.#table.writeUInt16LE(this.#at, reference + 2);
    this.#at += bytes + 1;
  }
}
