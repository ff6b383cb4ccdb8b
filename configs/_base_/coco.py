"""COCO 2017 beneath the environment variable COCO_ROOT, else data/coco/, and how it is scored."""
coco_root = '{{$COCO_ROOT:data/coco/}}'.rstrip('/') + '/'
coco_dataset = dict(data_root=coco_root)
coco_evaluator = dict(
    type='mmctx.CocoMetric', ann_file=coco_root + 'annotations/instances_val2017.json')
