// The properties of DRM objects, by name: numbers differ from driver to driver, names do not.

import {
  DRM_IOCTL_MODE_GETPROPERTY,
  DRM_IOCTL_MODE_OBJ_GETPROPERTIES,
  drmModeGetProperty,
  drmModeObjGetProperties,
} from '../../abi/drm-mode.ts';
import { SysError } from '../../runtime/errors.ts';
import type { DeviceFile } from '../device.ts';
import { ask, askList, Room, textOf } from './requests.ts';

const GET_PROPERTY = {
  name: 'DRM_IOCTL_MODE_GETPROPERTY',
  number: DRM_IOCTL_MODE_GETPROPERTY,
  layout: drmModeGetProperty,
};
const GET_PROPERTIES = {
  name: 'DRM_IOCTL_MODE_OBJ_GETPROPERTIES',
  number: DRM_IOCTL_MODE_OBJ_GETPROPERTIES,
  layout: drmModeObjGetProperties,
};

export interface DrmObject {
  readonly id: number;
  /** DRM_MODE_OBJECT_*. */
  readonly type: number;
}

export interface Property {
  readonly id: number;
  readonly value: bigint;
}

/** What an object's properties were when they were read. */
export class Properties {
  readonly object: DrmObject;
  readonly #byName: ReadonlyMap<string, Property>;

  constructor(object: DrmObject, byName: ReadonlyMap<string, Property>) {
    this.object = object;
    this.#byName = byName;
  }

  /** The number of a property. @throws SysError ENOENT when the driver has no such property */
  id(name: string): number {
    return this.#get(name).id;
  }

  value(name: string): bigint {
    return this.#get(name).value;
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  #get(name: string): Property {
    const property = this.#byName.get(name);
    if (property !== undefined) return property;
    const context = `property ${name} of DRM object ${this.object.id}`;
    throw new SysError({ call: GET_PROPERTIES.name, errnoName: 'ENOENT', context });
  }
}

/** Reads the properties of a card's objects; their names, which never change, once. */
export class PropertyReader {
  readonly #file: DeviceFile;
  readonly #names = new Map<number, string>();

  constructor(file: DeviceFile) {
    this.#file = file;
  }

  /** @throws SysError */
  read(object: DrmObject): Properties {
    const pairs = askList((room) => this.#ask(object, room));
    return new Properties(
      object,
      new Map(pairs.map((property) => [this.#nameOf(property.id), property])),
    );
  }

  #ask({ id, type }: DrmObject, room: number): { count: number; result: Property[] } {
    const [ids, values] = [Room.u32(room), Room.u64(room)];
    const { count_props: count } = ask(
      this.#file,
      GET_PROPERTIES,
      {
        props_ptr: ids.address,
        prop_values_ptr: values.address,
        count_props: room,
        obj_id: id,
        obj_type: type,
      },
      { context: `reading the properties of DRM object ${id}` },
    );
    const filled = Math.min(count, room);
    const numbers = values.bigints(filled);
    return { count, result: ids.numbers(filled).map((id, i) => ({ id, value: numbers[i]! })) };
  }

  #nameOf(id: number): string {
    const known = this.#names.get(id);
    if (known !== undefined) return known;
    const context = { context: `reading the name of DRM property ${id}` };
    const name = textOf(ask(this.#file, GET_PROPERTY, { prop_id: id }, context).name);
    this.#names.set(id, name);
    return name;
  }
}
