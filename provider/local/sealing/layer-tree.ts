/**
 * The tree of files of an image's layers, built entry by entry as containerd builds it when it unpacks one layer after
 * the other into a folder (`archive.Apply`), and the changes of the last layer in the form that an overlay needs.
 * https://github.com/opencontainers/image-spec/blob/main/layer.md#applying-changesets
 */
import type { FileHandle } from "node:fs/promises";
import { ArchiveError, printable, type ArchiveEntry, type Extent, type Metadata } from "./layer-archive.js";

const whiteoutPrefix = ".wh.";
const opaqueMarker = ".wh..wh..opq";

const capability = "security.capability";

/** As many symbolic links as containerd follows in one path. */
const maximumLinks = 255;

/** A folder that no archive describes. */
const undescribed = (): Metadata => ({
  mode: 0o755,
  uid: 0,
  gid: 0,
  modified: { seconds: 0, nanoseconds: 0 },
  xattrs: new Map(),
});

/** A file's content in an archive. */
export interface Content {
  archive: FileHandle;
  size: number;
  extents: Extent[];
}

export type FileType = Exclude<ArchiveEntry["type"], "link">;

/** A file of any type, which may have several names. */
interface Inode extends Metadata {
  type: FileType;
  /** Of a symbolic link. */
  target: string;
  major: number;
  minor: number;
  content?: Content;
  names: Set<Name>;
  /** Of a folder. */
  children: Map<string, Name>;
  /** The layer that last wrote it. */
  layer: number;
}

interface Name {
  parent: Inode;
  name: string;
  inode: Inode;
  layer: number;
  /** Where it is among a layer's changes. */
  order: number;
}

/** An entry of a layer's archive that removes something. */
interface Mark extends Metadata {
  order: number;
}

/** What one layer removed from the layers below, by folder. */
interface Removals {
  whiteouts: Map<Inode, Map<string, Mark>>;
  opaque: Map<Inode, Mark>;
}

/** A change of a layer, in the form of an entry of its archive. */
export interface Change extends Metadata {
  /** Without a slash at its beginning; "." is the root. */
  path: string;
  type: ArchiveEntry["type"];
  /** Of links: of a hard link, the path of an earlier change. */
  linkname: string;
  major: number;
  minor: number;
  content?: Content;
}

/** An entry depends on the content of the layers below, which is not known. */
export class BelowNeeded extends Error {
  override readonly name = "BelowNeeded";
}

export class LayerTree {
  private readonly root: Inode;
  private layer = 0;
  private order = 0;
  private removals: Removals = { whiteouts: new Map(), opaque: new Map() };
  /** Files that the layer wrote by entries of its own: an opaque marker keeps them. */
  private written = new Set<Inode | Name>();
  /** Folders of which the layer's archive has an opaque marker; containerd looks at the first one only. */
  private markedOpaque = new Set<Inode>();
  private rootEntry: Mark | undefined;

  /**
   * @param isComplete whether it holds all that is below the next layer. When it does not, an entry that depends on it
   * is an error of the kind BelowNeeded.
   */
  constructor(private readonly isComplete: boolean) {
    this.root = inodeOf("directory", undescribed(), 0);
  }

  /**
   * Applies one more layer.
   *
   * @throws ArchiveError when containerd would refuse it, or an overlay cannot express it.
   */
  async apply(archive: FileHandle, entries: AsyncIterable<ArchiveEntry>): Promise<void> {
    this.layer++;
    this.order = 0;
    this.removals = { whiteouts: new Map(), opaque: new Map() };
    this.written = new Set();
    this.markedOpaque = new Set();
    this.rootEntry = undefined;
    const folders: ArchiveEntry[] = [];
    for await (const entry of entries) {
      this.applyEntry(archive, entry);
      if (entry.type === "directory") folders.push(entry);
    }
    // containerd sets their times at the end, and refuses a layer that removed one of them again.
    for (const { name } of folders) {
      if (this.lookUp(this.resolve(clean(name))) === undefined && !this.isMark(name)) {
        throw new ArchiveError(`the folder ${printable(name)} is taken away by a later entry of the same layer`);
      }
    }
  }

  private isMark(path: string): boolean {
    return clean(path).at(-1)?.startsWith(whiteoutPrefix) ?? false;
  }

  private applyEntry(archive: FileHandle, entry: ArchiveEntry): void {
    const path = clean(entry.name);
    const base = path.at(-1);
    if (base === undefined || base === "..") {
      // containerd leaves the root as it is made: 0755, owned by root.
      this.rootEntry ??= { ...undescribed(), modified: entry.modified, order: this.order++ };
      return;
    }
    const components = this.resolve(path.slice(0, -1));
    if (components.some((component) => component.startsWith(whiteoutPrefix))) {
      throw new ArchiveError(
        `${printable(entry.name)}: a folder whose name begins with ${whiteoutPrefix} cannot be sealed`,
      );
    }
    const folder = this.folderOf(components);
    if (base === opaqueMarker) return this.makeOpaque(folder, entry);
    if (base.startsWith(whiteoutPrefix)) return this.whiteOut(folder, base.slice(whiteoutPrefix.length), entry);
    const present = this.present(folder, base);
    if (present?.inode.type === "directory" && entry.type === "directory") {
      return this.describeFolder(present, entry);
    }
    this.remove(folder, base);
    if (entry.type === "character-device" && entry.major === 0 && entry.minor === 0) {
      // In an overlay this device is a whiteout.
      return this.mark(folder, base, entry);
    }
    const isOverRemoved =
      (present !== undefined && present.layer === this.layer) || this.whiteoutsOf(folder).delete(base);
    const inode = entry.type === "link" ? this.linked(entry) : this.created(archive, entry);
    if (isOverRemoved && inode.type === "directory")
      this.removals.opaque.set(inode, { ...entry, order: this.order + 0.5 });
    this.written.add(this.put(folder, base, inode));
  }

  /** An existing folder gets the attributes of the entry and keeps its content. */
  private describeFolder(name: Name, entry: ArchiveEntry): void {
    const { inode } = name;
    const isFirst = !this.written.has(inode);
    const kept = isFirst ? new Map<string, Buffer>() : inode.xattrs;
    this.copyUp(inode);
    describe(inode, entry);
    inode.xattrs = new Map([...kept, ...allowedXattrs(entry, "directory")]);
    this.written.add(inode).add(name);
  }

  private created(archive: FileHandle, entry: ArchiveEntry): Inode {
    const type = entry.type as FileType;
    const inode = inodeOf(type, entry, this.layer);
    inode.xattrs = allowedXattrs(entry, type);
    // Linux keeps no permissions for links.
    if (type === "symlink") [inode.target, inode.mode] = [entry.linkname, 0o777];
    if (type === "character-device" || type === "block-device") {
      // What Linux has of them; containerd would cut the rest off.
      if (entry.major < 0 || entry.major > 0xfff || entry.minor < 0 || entry.minor > 0xfffff) {
        throw new ArchiveError(`${printable(entry.name)}: there is no device ${entry.major}:${entry.minor}`);
      }
      [inode.major, inode.minor] = [entry.major, entry.minor];
    }
    if (type === "file") inode.content = { archive, size: entry.size, extents: entry.extents };
    if (type === "directory") this.written.add(inode);
    return inode;
  }

  /** The target of a hard link, which gets the attributes of the link's entry. */
  private linked(entry: ArchiveEntry): Inode {
    const slash = entry.linkname.lastIndexOf("/");
    const base = entry.linkname.slice(slash + 1);
    const parent = this.resolve(entry.linkname.slice(0, slash + 1).split("/"));
    const folder = this.lookUp(parent);
    const inode = folder?.type === "directory" ? this.child(folder, base)?.inode : undefined;
    if (inode === undefined || inode.type === "directory") {
      const why = inode || ["", ".", ".."].includes(base) ? "is a folder" : "is not there";
      throw new ArchiveError(
        `${printable(entry.name)} is a hard link to ${printable(entry.linkname)}, which ${why}, neither in this layer nor below it`,
      );
    }
    // In an overlay all of a file's names have to be in one layer to stay names of one file.
    for (const name of inode.names) {
      this.copyUp(name.parent);
      if (name.layer !== this.layer) [name.layer, name.order] = [this.layer, this.order++];
    }
    const { mode } = inode;
    describe(inode, entry);
    if (inode.type === "symlink") inode.mode = mode;
    inode.xattrs = new Map([...inode.xattrs, ...allowedXattrs(entry, inode.type)]);
    // Linux removes the capabilities of a file whose owner is set.
    if (!entry.xattrs.has(capability)) inode.xattrs.delete(capability);
    inode.layer = this.layer;
    return inode;
  }

  private put(parent: Inode, name: string, inode: Inode): Name {
    const made: Name = { parent, name, inode, layer: this.layer, order: this.order++ };
    parent.children.set(name, made);
    inode.names.add(made);
    return made;
  }

  /** Removes a name with everything below it. */
  private remove(parent: Inode, name: string): void {
    const present = parent.children.get(name);
    if (present === undefined) return;
    parent.children.delete(name);
    present.inode.names.delete(present);
    for (const child of [...present.inode.children.keys()]) this.remove(present.inode, child);
  }

  private whiteOut(folder: Inode, name: string, entry: ArchiveEntry): void {
    if (["", ".", ".."].includes(name)) {
      throw new ArchiveError(`${printable(entry.name)} is no whiteout: it names no file`);
    }
    this.remove(folder, name);
    this.mark(folder, name, entry);
  }

  private mark(folder: Inode, name: string, entry: ArchiveEntry): void {
    // No layer can have a file of such a name.
    if (name.startsWith(whiteoutPrefix)) return;
    this.whiteoutsOf(folder).set(name, { ...entry, order: this.order++ });
  }

  /**
   * Hides the content of a folder in the layers below, at any depth; what this layer wrote by its own entries stays.
   */
  private makeOpaque(folder: Inode, entry: ArchiveEntry): void {
    if (this.markedOpaque.has(folder)) return;
    this.markedOpaque.add(folder);
    if (folder === this.root) return this.hideBelowRoot(entry);
    this.removeUnwritten(folder);
    this.removals.opaque.set(folder, { ...entry, order: this.order++ });
  }

  /** An overlay's root is never opaque, so each name that layers below have in it is hidden by itself. */
  private hideBelowRoot(entry: ArchiveEntry): void {
    if (!this.isComplete) throw new BelowNeeded("what layers below have in the root is not known");
    for (const name of [...this.root.children.values()]) {
      if (name.layer === this.layer && !this.written.has(name)) this.remove(this.root, name.name);
      else if (!this.written.has(name)) this.whiteOut(this.root, name.name, entry);
      else if (name.inode.type === "directory") this.makeOpaque(name.inode, entry);
    }
  }

  private removeUnwritten(folder: Inode): void {
    for (const name of [...folder.children.values()]) {
      if (!this.written.has(name)) this.remove(folder, name.name);
      else this.removeUnwritten(name.inode);
    }
  }

  private whiteoutsOf(folder: Inode): Map<string, Mark> {
    const present = this.removals.whiteouts.get(folder) ?? new Map<string, Mark>();
    this.removals.whiteouts.set(folder, present);
    return present;
  }

  /**
   * A folder of layers below becomes a change of this one, with those around it, so that the overlay shows it as it
   * was.
   */
  private copyUp(folder: Inode): void {
    if (folder === this.root || folder.layer === this.layer) return;
    const [name] = folder.names;
    this.copyUp(name!.parent);
    folder.layer = this.layer;
    [name!.layer, name!.order] = [this.layer, this.order++];
  }

  /** What this tree has of that name; a folder that is not described says nothing about the layers below. */
  private present(folder: Inode, name: string): Name | undefined {
    return folder.children.get(name);
  }

  /** The file of that name, in this layer or below. */
  private child(folder: Inode, name: string): Name | undefined {
    const present = folder.children.get(name);
    if (present || this.isComplete || this.isHidden(folder) || this.whiteoutsOf(folder).has(name)) return present;
    throw new BelowNeeded(`what layers below have of ${printable(name)} is not known`);
  }

  /** Whether the layers below are hidden at the place of a folder. */
  private isHidden(folder: Inode): boolean {
    for (let at = folder; ;) {
      if (this.removals.opaque.has(at)) return true;
      const [name] = at.names;
      if (name === undefined) return false;
      at = name.parent;
    }
  }

  /** Follows symbolic links; parts that do not exist stay. No link leads out of the root. */
  private resolve(path: string[]): string[] {
    const left = [...path];
    let links = 0;
    let resolved: string[] = [];
    while (left.length > 0) {
      const component = left.shift()!;
      if (component === "..") resolved.pop();
      if (component === "" || component === "." || component === "..") continue;
      const folder = this.lookUp(resolved);
      const inode = folder?.type === "directory" ? this.child(folder, component)?.inode : undefined;
      if (inode?.type === "symlink") {
        if (++links > maximumLinks) throw new ArchiveError(`${printable(path.join("/"))} leads through too many links`);
        if (inode.target.startsWith("/")) resolved = [];
        left.unshift(...inode.target.split("/"));
      } else resolved.push(component);
    }
    return resolved;
  }

  /** The file at a path without links; undefined when there is none. */
  private lookUp(path: string[]): Inode | undefined {
    let at: Inode | undefined = this.root;
    for (const component of path) {
      if (at.type !== "directory")
        throw new ArchiveError(`${printable(path.join("/"))} leads through what is no folder`);
      at = this.child(at, component)?.inode;
      if (at === undefined) return undefined;
    }
    return at;
  }

  /** The folder at a path without links, created when absent, and recorded as a change of this layer. */
  private folderOf(path: string[]): Inode {
    let at = this.root;
    for (const component of path) {
      const present = this.child(at, component)?.inode;
      if (present && present.type !== "directory") {
        throw new ArchiveError(`${printable(path.join("/"))} leads through what is no folder`);
      }
      if (present) this.copyUp(present);
      at = present ?? this.madeFolder(at, component);
    }
    return at;
  }

  private madeFolder(parent: Inode, name: string): Inode {
    const inode = inodeOf("directory", undescribed(), this.layer);
    const isOverRemoved = this.whiteoutsOf(parent).delete(name);
    if (isOverRemoved) this.removals.opaque.set(inode, { ...undescribed(), order: this.order + 0.5 });
    this.put(parent, name, inode);
    return inode;
  }

  /** The changes of the last layer, in the order of its archive; a changed or new folder comes before its content. */
  changes(): Change[] {
    const found: { order: number; change: Change; inode?: Inode }[] = [];
    const none = { linkname: "", major: 0, minor: 0 };
    found.push({
      order: this.rootEntry?.order ?? -1,
      change: { ...none, ...(this.rootEntry ?? undescribed()), path: ".", type: "directory" },
    });
    const collect = (folder: Inode, prefix: string) => {
      const opaque = this.removals.opaque.get(folder);
      if (opaque) {
        const change: Change = { ...none, ...metadataOf(opaque), path: prefix + opaqueMarker, type: "file" };
        found.push({ order: opaque.order, change });
      }
      for (const [name, mark] of this.removals.whiteouts.get(folder) ?? []) {
        const change: Change = { ...none, ...metadataOf(mark), path: prefix + whiteoutPrefix + name, type: "file" };
        found.push({ order: mark.order, change });
      }
      for (const { name, inode, layer, order } of folder.children.values()) {
        if (layer !== this.layer) continue;
        const path = prefix + name;
        const { type, target: linkname, major, minor, content } = inode;
        const change = { ...metadataOf(inode), path, type, linkname, major, minor, ...(content ? { content } : {}) };
        found.push({ order, change, inode });
        if (type === "directory") collect(inode, `${path}/`);
      }
    };
    collect(this.root, "");
    found.sort((one, other) => one.order - other.order);
    const firstNames = new Map<Inode, string>();
    return found.map(({ change, inode }): Change => {
      if (inode === undefined || inode.names.size < 2) return change;
      const linkname = firstNames.get(inode);
      if (linkname === undefined) {
        firstNames.set(inode, change.path);
        return change;
      }
      const { content: _content, ...rest } = change;
      return { ...rest, type: "link", linkname };
    });
  }
}

function inodeOf(type: FileType, metadata: Metadata, layer: number): Inode {
  const empty = { target: "", major: 0, minor: 0, names: new Set<Name>(), children: new Map<string, Name>() };
  return { ...metadataOf(metadata), ...empty, type, layer };
}

function metadataOf({ mode, uid, gid, modified, xattrs }: Metadata): Metadata {
  return { mode, uid, gid, modified, xattrs };
}

function describe(inode: Inode, { mode, uid, gid, modified }: Metadata): void {
  Object.assign(inode, { mode, uid, gid, modified });
}

/** Components of a path, made shorter as Go's filepath.Clean does: lexically, before any link is followed. */
function clean(path: string): string[] {
  const components: string[] = [];
  for (const component of path.split("/")) {
    if (component === "" || component === ".") continue;
    if (component === "..") components.pop();
    else components.push(component);
  }
  return components;
}

/**
 * The extended attributes that a file may get from an archive. `trusted.` ones are the overlay's own; containerd passes
 * over these and over those that Linux takes for no such file.
 */
function allowedXattrs({ xattrs }: Metadata, type: FileType): Map<string, Buffer> {
  const isAllowed = (name: string) =>
    name.startsWith("security.") ||
    (name.startsWith("user.") && (type === "file" || type === "directory")) ||
    (name === "system.posix_acl_access" && type !== "symlink") ||
    (name === "system.posix_acl_default" && type === "directory");
  return new Map([...xattrs].filter(([name]) => isAllowed(name)));
}
