import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import * as z from 'zod';
import { codeOf, UsageError } from '../base/errors.js';
import { SerialQueue } from '../base/serial-queue.js';
import { RecordFolder } from '../volume/record-folder.js';
import { VolumeError } from '../volume/volume-error.js';
import { readVolumeContext } from './csi-attributes.js';
import { CONTROLLER_CAPABILITIES } from './csi-interface.js';
import type { CreateMessage, DeleteMessage, ValidateMessage } from './csi-messages.js';
import { capabilityOf } from './csi-node.js';

const LIST_MAX = 4096;
const ID_BYTES_MAX = 128;

/** The volumes there are, as an administrator has written them down. */
const listSchema = z
  .array(
    z.strictObject({
      id: z.string().min(1).max(ID_BYTES_MAX),
      capacityBytes: z.number().int().positive(),
      /** As the attributes of a volume. */
      attributes: z.record(z.string(), z.string()),
    }),
  )
  .max(LIST_MAX)
  .refine((list) => new Set(list.map(({ id }) => id)).size === list.length, 'an id is there twice');

type ListedVolume = z.output<typeof listSchema>[number];

/**
 * Which name has which volume. A deleted one is not given away again: its data are still there, and
 * they are not the next user's.
 */
const bindingSchema = z.strictObject({
  version: z.literal(1),
  volumeId: z.string(),
  name: z.string(),
  isDeleted: z.boolean(),
});

type Binding = z.output<typeof bindingSchema>;

/** The Controller service over a list of volumes: it gives them names, and makes none. */
export class CsiController {
  readonly #list: readonly ListedVolume[];
  readonly #bindings: RecordFolder<Binding>;
  /** No volume is given away twice. */
  readonly #queue = new SerialQueue();

  private constructor(list: readonly ListedVolume[], folder: string) {
    this.#list = list;
    this.#bindings = new RecordFolder({
      folder,
      schema: bindingSchema,
      keyOf: ({ volumeId }) => volumeId,
    });
  }

  /** Throws UsageError for a list that cannot be read or is wrong. */
  static async open(path: string, folder: string): Promise<CsiController> {
    try {
      const list = listSchema.parse(parse(await readFile(path, 'utf8')));
      const any = { isBlock: false, fsType: '', mountFlags: [], isReadOnly: false };
      for (const { attributes } of list) readVolumeContext(attributes, any);
      return new CsiController(list, folder);
    } catch (error) {
      const isSchema = error instanceof z.ZodError;
      const why = isSchema ? z.prettifyError(error) : String(codeOf(error) || error);
      throw new UsageError(`--controller-volumes ${path}: ${why}`, { cause: error });
    }
  }

  create(request: CreateMessage): Promise<unknown> {
    return this.#queue.run(() => this.#create(request));
  }

  async #create(request: CreateMessage): Promise<unknown> {
    const { name, volume_capabilities } = request;
    if (name === '') throw new VolumeError('invalid', 'name is missing.');
    requireCapabilities(volume_capabilities);
    const required = Number(request.capacity_range?.required_bytes ?? 0);
    const limit = Number(request.capacity_range?.limit_bytes ?? 0);
    if (required < 0 || limit < 0 || (limit > 0 && limit < required)) {
      throw new VolumeError('invalid', `A volume cannot have ${required} to ${limit} bytes.`);
    }
    const fits = ({ capacityBytes }: ListedVolume) => {
      return capacityBytes >= required && (limit === 0 || capacityBytes <= limit);
    };
    const { records } = await this.#bindings.all();
    const known = records.find((record) => record.name === name && !record.isDeleted);
    const has = this.#list.find(({ id }) => id === known?.volumeId);
    if (has !== undefined) {
      if (fits(has)) return { volume: volumeOf(has) };
      throw new VolumeError('exists', `The volume ${name} has ${has.capacityBytes} bytes.`);
    }
    const taken = new Set(records.map(({ volumeId }) => volumeId));
    const free = this.#list
      .filter((volume) => !taken.has(volume.id) && fits(volume))
      .sort((one, other) => one.capacityBytes - other.capacityBytes)[0];
    if (free === undefined) {
      const words = `No volume of the list is free that has ${required} bytes or more`;
      throw new VolumeError('outOfRange', `${words}; add one to --controller-volumes.`);
    }
    await this.#bindings.save({ version: 1, volumeId: free.id, name, isDeleted: false });
    return { volume: volumeOf(free) };
  }

  delete(request: DeleteMessage): Promise<unknown> {
    return this.#queue.run(() => this.#delete(request));
  }

  async #delete(request: DeleteMessage): Promise<unknown> {
    if (request.volume_id === '') throw new VolumeError('invalid', 'volume_id is missing.');
    const binding = await this.#bindings.find(request.volume_id);
    if (binding !== null) await this.#bindings.save({ ...binding, isDeleted: true });
    return {};
  }

  async validate(request: ValidateMessage): Promise<unknown> {
    const { volume_id, volume_capabilities, volume_context } = request;
    if (volume_id === '') throw new VolumeError('invalid', 'volume_id is missing.');
    if (volume_capabilities.length === 0) {
      throw new VolumeError('invalid', 'volume_capabilities are missing.');
    }
    const binding = await this.#bindings.find(volume_id);
    if (binding === null || binding.isDeleted) {
      throw new VolumeError('notFound', `There is no volume ${volume_id}.`);
    }
    try {
      requireCapabilities(volume_capabilities);
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      return { message: error.message };
    }
    return { confirmed: { volume_capabilities, volume_context } };
  }

  capabilities(): unknown {
    const types = Object.values(CONTROLLER_CAPABILITIES);
    return { capabilities: types.map((type) => ({ rpc: { type } })) };
  }
}

function requireCapabilities(capabilities: CreateMessage['volume_capabilities']): void {
  if (capabilities.length === 0) {
    throw new VolumeError('invalid', 'volume_capabilities are missing.');
  }
  for (const capability of capabilities) capabilityOf(capability);
}

function volumeOf({ id, capacityBytes, attributes }: ListedVolume) {
  return { volume_id: id, capacity_bytes: capacityBytes, volume_context: attributes };
}
