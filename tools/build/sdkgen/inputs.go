package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

const typeReference = "#/types/"

// The types are aliases, because TypeScript does not accept an interface where it expects Properties.
const inputsHeader = "// Generated from provider/schema.json by tools/build/sdkgen. Do not edit.\n"

// inputTypes returns provider/schema/inputs.ts: for each resource a TypeScript type of its inputs as they are once
// their defaults are applied, and every type that they refer to.
func inputTypes(spec schema.PackageSpec) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(inputsHeader)

	written := map[string]bool{}
	for _, token := range slices.Sorted(maps.Keys(spec.Resources)) {
		resource := spec.Resources[token]
		name := nameOf(token) + "Inputs"
		if err := writeType(&out, name, "", resource.InputProperties, resource.RequiredInputs); err != nil {
			return nil, fmt.Errorf("%s: %w", token, err)
		}
		if err := writeReferences(&out, spec, resource.InputProperties, written); err != nil {
			return nil, fmt.Errorf("%s: %w", token, err)
		}
	}

	out.WriteString("\n/** The inputs of each resource, by its token. */\nexport type Inputs = {\n")
	for _, token := range slices.Sorted(maps.Keys(spec.Resources)) {
		fmt.Fprintf(&out, "  %q: %sInputs;\n", token, nameOf(token))
	}
	out.WriteString("};\n")
	return out.Bytes(), nil
}

// writeReferences writes the object types that properties refer to, each once.
func writeReferences(
	out *bytes.Buffer, spec schema.PackageSpec, properties map[string]schema.PropertySpec, written map[string]bool,
) error {
	for _, property := range slices.Sorted(maps.Keys(properties)) {
		for found := properties[property].TypeSpec; ; {
			if found.Items != nil {
				found = *found.Items
				continue
			}
			if found.AdditionalProperties != nil {
				found = *found.AdditionalProperties
				continue
			}
			token := strings.TrimPrefix(found.Ref, typeReference)
			if found.Ref == "" || written[token] {
				break
			}
			object, ok := spec.Types[token]
			if !ok || len(object.Enum) > 0 {
				return fmt.Errorf("%s: %s is not an object type of this schema", property, found.Ref)
			}
			written[token] = true
			if err := writeType(out, nameOf(token), object.Description, object.Properties, object.Required); err != nil {
				return fmt.Errorf("%s: %w", token, err)
			}
			if err := writeReferences(out, spec, object.Properties, written); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

func writeType(
	out *bytes.Buffer, name, description string, properties map[string]schema.PropertySpec, required []string,
) error {
	out.WriteString("\n")
	if description != "" {
		fmt.Fprintf(out, "/** %s */\n", description)
	}
	fmt.Fprintf(out, "export type %s = {\n", name)
	for _, property := range slices.Sorted(maps.Keys(properties)) {
		spec := properties[property]
		typeName, err := typeOf(spec.TypeSpec)
		if err != nil {
			return fmt.Errorf("%s: %w", property, err)
		}
		if spec.Secret {
			out.WriteString("  /** Secret. */\n")
		}
		// A default takes the place of what is absent.
		optional := "?"
		if slices.Contains(required, property) || spec.Default != nil {
			optional = ""
		}
		fmt.Fprintf(out, "  %s%s: %s;\n", property, optional, typeName)
	}
	out.WriteString("};\n")
	return nil
}

func typeOf(spec schema.TypeSpec) (string, error) {
	switch {
	case strings.HasPrefix(spec.Ref, typeReference):
		return nameOf(spec.Ref), nil
	case spec.Type == "string" || spec.Type == "boolean" || spec.Type == "number":
		return spec.Type, nil
	case spec.Type == "integer":
		return "number", nil
	case spec.Type == "array" && spec.Items != nil:
		item, err := typeOf(*spec.Items)
		return item + "[]", err
	case spec.Type == "object" && spec.AdditionalProperties != nil:
		value, err := typeOf(*spec.AdditionalProperties)
		return fmt.Sprintf("Record<string, %s>", value), err
	default:
		return "", fmt.Errorf("no TypeScript type for %+v", spec)
	}
}

// nameOf returns the last part of a token: palisade:index:Registry -> Registry.
func nameOf(token string) string {
	return token[strings.LastIndex(token, ":")+1:]
}
