"""TSM's recipe on Kinetics-400 beneath the environment variable K400_ROOT, else data/kinetics400/.

mmaction2's TSM ResNet50 with 16 frames, the videos decoded by PyAV. Training takes a random frame
of each of 16 equal parts of a video, validation and test their middle frames and the centre crop.
`--tta` tests with `tta_pipeline`: ten clips of 16 frames, three crops of 256x256 of each.
An unreadable or truncated video ends a test with its name; training takes another one.
"""
_base_ = 'mmaction::recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_kinetics400-rgb.py'
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

frames = dict(clip_len=1, num_clips=16)
load, decode = dict(type='mmctx.PyAVInit'), dict(type='mmctx.PyAVDecode')
train_pipeline = [load, dict(type='SampleFrames', **frames), decode, *_base_.train_pipeline[3:]]
val_pipeline = [
    load, dict(type='SampleFrames', test_mode=True, **frames), decode, *_base_.val_pipeline[3:]
]
test_pipeline = val_pipeline
tta_pipeline = [
    load,
    dict(type='mmctx.SampleShiftedClips', shifts=10, **frames),
    decode,
    dict(type='Resize', scale=(-1, 256)),
    dict(type='ThreeCrop', crop_size=256),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs')
]

data_root = data_root_val = '{{$K400_ROOT:data/kinetics400/}}'.rstrip('/') + '/'
ann_file_train = 'kinetics400_train_list_videos.txt'
ann_file_val = 'kinetics400_val_list_videos.txt'
kinetics400 = dict(type='mmctx.VideoDataset', data_root=data_root, num_classes=400)
train_dataloader = dict(
    dataset=dict(
        ann_file=ann_file_train,
        data_prefix=dict(video='videos_train'),
        pipeline=train_pipeline,
        **kinetics400))
val_dataloader = dict(
    dataset=dict(
        ann_file=ann_file_val,
        data_prefix=dict(video='videos_val'),
        pipeline=val_pipeline,
        **kinetics400))
test_dataloader = val_dataloader
