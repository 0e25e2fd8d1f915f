#!/usr/bin/env python3
"""Checks rendered manifests against schemas, unknown fields refused. Prints what it objects to.

Usage: validate.py KUBERNETES_VERSION CRD_DIRECTORY RENDERED...
Kubernetes's own kinds are checked with the package kubernetes-validate; others with the definitions
(CustomResourceDefinition) found in CRD_DIRECTORY. A kind without a schema is named on standard error.
"""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml


def closed(schema):
    """The schema with every object that lists its properties refusing others, as fieldValidation=Strict does."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        result["additionalProperties"] = False
    return result


def definitions(directory):
    """Schemas by (apiVersion, kind)."""
    found = {}
    for path in sorted(pathlib.Path(directory).glob("*.yaml")):
        for crd in filter(None, yaml.safe_load_all(path.read_text())):
            for version in crd["spec"]["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema.setdefault("properties", {}).update(
                    {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}})
                key = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
                found[key] = jsonschema.Draft7Validator(schema)
    return found


def complaints(document, version, custom):
    group = document["apiVersion"].split("/")[0]
    if "." in group and not group.endswith(".k8s.io"):
        validator = custom.get((document["apiVersion"], document["kind"]))
        if validator is None:
            raise LookupError
        for error in validator.iter_errors(document):
            yield f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        return
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'/'.join(map(str, error.path))}: {error.message}"


def main():
    version, crds, *files = sys.argv[1:]
    custom, without, wrong = definitions(crds), set(), 0
    for file in files:
        for document in filter(None, yaml.safe_load_all(pathlib.Path(file).read_text())):
            name = f"{pathlib.Path(file).stem}: {document['kind']} {document['metadata']['name']}"
            try:
                for complaint in complaints(document, version, custom):
                    print(f"{name}: {complaint}")
                    wrong += 1
            except LookupError:
                without.add(f"{document['kind']} ({document['apiVersion']})")
    for kind in sorted(without):
        print(f"no schema for {kind}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
