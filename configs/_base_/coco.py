"""COCO 2017 and its metrics; the data are in COCO_ROOT, by default data/coco/."""
coco_root = '{{$COCO_ROOT:data/coco/}}'.rstrip('/') + '/'
coco_dataset = dict(data_root=coco_root)
coco_evaluator = dict(
    type='mmctx.CocoMetric', ann_file=coco_root + 'annotations/instances_val2017.json')
