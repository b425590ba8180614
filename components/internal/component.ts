/** What Palisade's components have in common: type tokens, children's names, aliases, refused names. */
import * as pulumi from "@pulumi/pulumi";
import { ArgumentCheck, given, rules } from "./arguments.js";

/** Options that a component passes to one of its children. */
export interface ChildOptions extends pulumi.CustomResourceOptions {
  /** Names the child had in earlier releases, without the component's own name. */
  formerRoles?: string[];
}

/** Base of every component. Type tokens and children's names are permanent: they are part of URNs. */
export abstract class Component extends pulumi.ComponentResource {
  /** The engine does not pass them to children, and a component by itself takes no time. */
  private readonly customTimeouts: pulumi.CustomTimeouts | undefined;

  /**
   * @param kind last part of the type token: `palisade:<module>:<kind>`
   * @param name the user's name of the component, a DNS label; children's names derive from it
   * @param args kept for the engine's record of the component
   * @param opts the user's options
   * @param formerKinds kinds this component had in earlier releases
   * @param module the sub-path that exports the component; `index` for the package itself
   */
  protected constructor(
    kind: string,
    private readonly componentName: string,
    args: pulumi.Inputs,
    opts: pulumi.ComponentResourceOptions | undefined,
    formerKinds: string[] = [],
    module: "index" | "azure" | "kubernetes" = "index",
  ) {
    Component.checkFor(kind, componentName).refuse();
    const aliases = formerKinds.map((former) => ({ type: `palisade:${module}:${former}` }));
    super(`palisade:${module}:${kind}`, componentName, args, pulumi.mergeOptions(opts, { aliases }));
    this.customTimeouts = opts?.customTimeouts;
  }

  /** A check that already holds what is wrong with the name. */
  protected static checkFor(kind: string, name: string): ArgumentCheck {
    const check = new ArgumentCheck(`${kind} "${name}"`);
    check.field("name", name, rules.dnsLabel);
    return check;
  }

  /**
   * The arguments as every component reads them: without what is `null`, and refused when something in them is wrong.
   *
   * @throws ArgumentError with the path of each wrong field
   */
  protected static checked<A extends object>(
    kind: string,
    name: string,
    args: A,
    report: (check: ArgumentCheck, args: A) => void,
  ): A {
    const check = Component.checkFor(kind, name);
    const read = given<A | undefined>(args) ?? ({} as A);
    check.names("", read);
    report(check, read);
    check.refuse();
    return read;
  }

  /** `<component>-<role>`. */
  protected childName(role: string): string {
    return `${this.componentName}-${role}`;
  }

  protected childOptions({ formerRoles = [], ...opts }: ChildOptions = {}): pulumi.CustomResourceOptions {
    const aliases = formerRoles.map((role) => ({ name: this.childName(role) }));
    const { customTimeouts } = this;
    return pulumi.mergeOptions({ parent: this, aliases, ...(customTimeouts ? { customTimeouts } : {}) }, opts);
  }
}
